//! A command in a container's root filesystem: namespaces, pivot_root, the pseudo-filesystems, and
//! what the image's config says about environment, user and directory. No container runtime: no
//! cgroups, no seccomp, no network of its own.
