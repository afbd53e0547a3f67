//! The commands about images and containers, with their help.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

/// How layers are compressed where plyfs writes them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum CompressionArg {
    /// Read by every tool
    Gzip,
    /// Smaller and faster; tools from before 2019 cannot read it
    Zstd,
    /// Not compressed
    None,
}

/// How an exported image is laid out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum FormatArg {
    /// A tar archive of an OCI image layout
    OciArchive,
    /// An OCI image layout in a directory
    OciDir,
    /// A tar archive as 'docker save' writes it, for 'docker load' and 'podman load'
    DockerArchive,
}

/// The commands of `plyfs image`.
#[derive(Debug, Subcommand)]
pub enum ImageCommand {
    /// Import an image that another tool wrote
    Import(ImportArgs),
    /// List images
    Ls(LsArgs),
    /// Show all that is known of an image, as JSON
    Inspect(InspectArgs),
    /// Give an image one more name
    Tag(TagArgs),
    /// Remove names of images, and images without one
    Rm(ImageRmArgs),
    /// Remove the images that have no name and no container
    Prune(PruneArgs),
    /// Write an image for other tools
    Export(ExportArgs),
}

/// Arguments of `plyfs image import`.
#[derive(Args, Debug)]
#[command(after_help = "\
Reads an OCI image layout (a directory, or a tar archive of one) and what 'docker save' and
'podman save' write; layers may be plain, gzip or zstd. Each layer is verified by its digest before
anything becomes visible, and stored once, however many images have it. Interrupted, it leaves
nothing that shows; layers that are finished are kept for a day, for the same command to go on with
('plyfs gc' removes them). It ends before the store's filesystem is full.

Examples:
  plyfs image import debian.oci.tar
  plyfs image import layout/ --name debian:12
  skopeo copy docker://docker.io/library/alpine oci-archive:alpine.tar && \\
    plyfs image import alpine.tar --name alpine")]
pub struct ImportArgs {
    /// An archive, or the directory of an OCI layout
    #[arg(value_name = "FILE")]
    pub source: PathBuf,
    /// What to call the image, instead of what the archive calls it
    #[arg(long, value_name = "NAME[:TAG]")]
    pub name: Option<String>,
    /// Which image of several: os/arch or os/arch/variant [default: this machine's]
    #[arg(long, value_name = "PLATFORM")]
    pub platform: Option<String>,
    /// One JSON object an image
    #[arg(long)]
    pub json: bool,
}

/// Arguments of `plyfs ls` and `plyfs image ls`.
#[derive(Args, Debug)]
#[command(after_help = "\
Example:
  plyfs ls --json")]
pub struct LsArgs {
    /// One JSON object a line
    #[arg(long)]
    pub json: bool,
}

/// Arguments of `plyfs image inspect`.
#[derive(Args, Debug)]
#[command(after_help = "\
Example:
  plyfs image inspect debian | jq .config.config.Env")]
pub struct InspectArgs {
    /// A name, or the beginning of an id
    #[arg(value_name = "IMAGE")]
    pub image: String,
}

/// Arguments of `plyfs image tag`.
#[derive(Args, Debug)]
#[command(after_help = "\
A name that another image has moves to this one.

Example:
  plyfs image tag debian:12 debian:stable")]
pub struct TagArgs {
    /// A name, or the beginning of an id
    #[arg(value_name = "IMAGE")]
    pub image: String,
    /// The new name
    #[arg(value_name = "NAME[:TAG]")]
    pub name: String,
}

/// Arguments of `plyfs image rm`.
#[derive(Args, Debug)]
#[command(after_help = "\
By name: that name goes, and with its last name the image. By id: the image with all its names.
Refused while a container is made from it. Layers that other images have stay.

Example:
  plyfs image rm debian:12")]
pub struct ImageRmArgs {
    /// Names, or beginnings of ids
    #[arg(value_name = "IMAGE", required = true)]
    pub images: Vec<String>,
    /// Remove an image by its id even if it has several names
    #[arg(long)]
    pub force: bool,
    /// One JSON object an image
    #[arg(long)]
    pub json: bool,
}

/// Arguments of `plyfs image prune`.
#[derive(Args, Debug)]
#[command(after_help = "\
Example:
  plyfs image prune")]
pub struct PruneArgs {
    /// Also those that have names, if no container is made of them
    #[arg(long)]
    pub all: bool,
    /// One JSON object an image
    #[arg(long)]
    pub json: bool,
}

/// Arguments of `plyfs image export`.
#[derive(Args, Debug)]
#[command(after_help = "\
The layers are, bit for bit, those that were imported or committed, and so are the config and with
it the image's id; how they are compressed is plyfs's, so that the digests of blobs may differ.

Examples:
  plyfs image export debian debian.oci.tar
  plyfs image export debian layout --format oci-dir --compression zstd
  plyfs image export debian debian.tar --format docker-archive && docker load -i debian.tar")]
pub struct ExportArgs {
    /// A name, or the beginning of an id
    #[arg(value_name = "IMAGE")]
    pub image: String,
    /// The file or directory to write; must not exist
    #[arg(value_name = "DEST")]
    pub dest: PathBuf,
    /// How it is laid out
    #[arg(long, value_name = "FORMAT", default_value = "oci-archive")]
    pub format: FormatArg,
    /// How layers are compressed [default: gzip; none in a docker-archive]
    #[arg(long, value_name = "HOW")]
    pub compression: Option<CompressionArg>,
}

/// Arguments of `plyfs run`.
#[derive(Args, Debug)]
#[command(after_help = "\
The command gets a mount, process, host-name and IPC namespace of its own, /proc, /sys and /dev, the
host's network and resolv.conf, and what the image says of environment, user and directory. plyfs
passes signals on and ends as the command does: its exit status, or 128 plus the signal's number;
127 if the command is not there, 126 if it cannot be started.

This is no container runtime: no limits on resources, no filter of system calls, no network of its
own. For what you do not trust, use runc, podman or containerd, which plyfs can serve.

IMAGE is an image's name or id, the file or directory of one (imported first), or the name of a
container that was kept. A container is asked for first, then an image.

Examples:
  plyfs run debian -- cat /etc/os-release
  plyfs run debian.oci.tar                     what the image says: a shell, mostly
  plyfs run debian --keep web -- bash          leaves the container 'web' behind
  plyfs run web -- bash                        and starts it again
  plyfs run -v $PWD:/src -w /src debian -- make")]
pub struct RunArgs {
    /// Keep the container under this name when the command has ended
    #[arg(long, value_name = "NAME")]
    pub keep: Option<String>,
    /// Show a file or directory of the host at a path of the container; :ro for reading only
    #[arg(short = 'v', long = "volume", value_name = "HOST:PATH[:ro]")]
    pub volumes: Vec<OsString>,
    /// Set a variable, or pass on the one that plyfs has
    #[arg(short = 'e', long = "env", value_name = "KEY[=VALUE]")]
    pub env: Vec<OsString>,
    /// Run as this user of the container
    #[arg(short = 'u', long, value_name = "USER[:GROUP]")]
    pub user: Option<String>,
    /// Run in this directory of the container
    #[arg(short = 'w', long, value_name = "DIR")]
    pub workdir: Option<OsString>,
    /// The host name it sees [default: the container's name]
    #[arg(long, value_name = "NAME")]
    pub hostname: Option<String>,
    /// What to start instead of the image's entry point
    #[arg(long, value_name = "COMMAND")]
    pub entrypoint: Option<OsString>,
    /// The image, or a container that was kept
    #[arg(value_name = "IMAGE|CONTAINER")]
    pub image: String,
    /// The command and its arguments, instead of the image's
    #[arg(value_name = "CMD", trailing_var_arg = true, allow_hyphen_values = true)]
    pub command: Vec<OsString>,
}

/// Arguments of `plyfs create`.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  plyfs create debian web && plyfs mount web /mnt
  plyfs create debian web && plyfs run web -- bash")]
pub struct CreateArgs {
    /// A name, the beginning of an id, or the file of an image, which is imported first
    #[arg(value_name = "IMAGE")]
    pub image: String,
    /// What to call the container
    #[arg(value_name = "NAME")]
    pub name: String,
}

/// Arguments of `plyfs commit`.
#[derive(Args, Debug)]
#[command(after_help = "\
The new image has the layers of the container's image and one more with what the container changed.
The layer depends on nothing but the container: committed twice, it is the same. With
SOURCE_DATE_EPOCH in the environment the image is, too. Of a container that is mounted, what is
being written meanwhile is in the image or not.

Examples:
  plyfs commit web web:2
  plyfs commit web web:2 --change 'CMD [\"nginx\"]' --message 'nginx installed'")]
pub struct CommitArgs {
    /// The container
    #[arg(value_name = "CONTAINER")]
    pub container: String,
    /// The new image's name
    #[arg(value_name = "NAME[:TAG]")]
    pub image: String,
    /// What was done, for the image's history
    #[arg(short = 'm', long, value_name = "TEXT")]
    pub message: Option<String>,
    /// Who did it
    #[arg(long, value_name = "TEXT")]
    pub author: Option<String>,
    /// Change the config, in the words of a Dockerfile: CMD, ENTRYPOINT, ENV, EXPOSE, LABEL,
    /// STOPSIGNAL, USER, VOLUME, WORKDIR
    #[arg(short = 'c', long = "change", value_name = "INSTRUCTION")]
    pub changes: Vec<String>,
    /// How the layer will be compressed when it is exported
    #[arg(long, value_name = "HOW", default_value = "gzip")]
    pub compression: CompressionArg,
}

/// Arguments of `plyfs rm`.
#[derive(Args, Debug)]
#[command(after_help = "\
What the container changed is lost. Refused while it is in use.

Example:
  plyfs rm web")]
pub struct RmArgs {
    /// Containers
    #[arg(value_name = "CONTAINER", required = true)]
    pub containers: Vec<String>,
}

/// Arguments of commands that only clean up.
#[derive(Args, Debug)]
#[command(after_help = "\
Example:
  plyfs gc --json")]
pub struct GcArgs {
    /// One JSON object
    #[arg(long)]
    pub json: bool,
}
