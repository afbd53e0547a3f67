//! What is on our disk: images, the layers they share, and containers.
