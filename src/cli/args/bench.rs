//! The command that measures, with its help.

use std::path::PathBuf;

use clap::{Args, Subcommand};

/// Arguments of `plyfs bench`.
#[derive(Args, Debug)]
#[command(
    args_conflicts_with_subcommands = true,
    after_help = "\
Without options, the quick set on plyfs, overlay, overlay-full, fuse-overlayfs and plain: some
minutes, and two gigabytes of room. All targets take turns, round after round, each on fresh
directories; every workload checks that what it did has happened. Shown are multiples of what the
kernel's overlayfs takes, with the interval that they lie in, the worst for plyfs first.

Targets:
  plyfs, plyfs-fuser    this program, on its own driver or on the crate fuser
  overlay               the kernel's overlayfs as it mounts by default
  overlay-full          with redirect_dir, metacopy and index
  fuse-overlayfs        the one in $PATH; /PATH for another, also NAME=/PATH
  plain                 a directory: a copy of the layers, the floor
  reflink               a copy that shares its blocks, where the filesystem can do that
  cmd:COMMAND           any program; {opts} and {mnt} (or {lower}, {upper}, {work}) stand for what
                        it has to be told; also NAME=cmd:COMMAND

Ctrl-C ends it; what was measured until then is shown, and nothing is left behind.

Examples:
  plyfs bench
  plyfs bench --full --out results        everything; also results.json, report.md, report.html
  plyfs bench --workload 'copyup-*' --rounds 9 --dir /mnt/xfs
  plyfs bench --target plyfs --target 'other=cmd:my-overlay -o {opts} {mnt}'"
)]
pub struct BenchArgs {
    /// Compare or list instead of measuring.
    #[command(subcommand)]
    pub command: Option<BenchCommand>,
    /// All workloads, and all targets that need no further word. Takes most of an hour, and 25 GiB
    #[arg(long)]
    pub full: bool,
    /// What to measure; may be given several times
    #[arg(long = "target", value_name = "TARGET")]
    pub targets: Vec<String>,
    /// Only the workloads of this name, in which * and ? stand for anything; may be given several
    /// times
    #[arg(long = "workload", value_name = "PATTERN")]
    pub workloads: Vec<String>,
    /// How often each is measured
    #[arg(long, value_name = "N", default_value_t = 5,
        value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub rounds: u32,
    /// Where; the filesystem there is what is measured [default: $TMPDIR, or /var/tmp]
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
    /// Keep client and server on one CPU: steadier, and without the price of waking another CPU
    #[arg(long)]
    pub pin: bool,
    /// Also write results.json, report.md and report.html to this directory; made if it is missing
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// Print everything that was measured as JSON
    #[arg(long)]
    pub json: bool,
}

/// What else there is about measuring.
#[derive(Debug, Subcommand)]
pub enum BenchCommand {
    /// Compare two runs: what has become slower or faster, and what cannot be told
    #[command(after_help = "\
Where both runs have measured the kernel's overlayfs, what counts is the change relative to that:
what the machine did to both is taken out of it. Shown is what can be told, the worst first.

Examples:
  plyfs bench --out before && cargo build --release && plyfs bench --out after
  plyfs bench compare before/results.json after/results.json")]
    Compare {
        /// The results.json of the run before
        #[arg(value_name = "OLD")]
        old: PathBuf,
        /// The results.json of the run after
        #[arg(value_name = "NEW")]
        new: PathBuf,
    },
    /// List the workloads
    #[command(after_help = "\
Example:
  plyfs bench list")]
    List {
        /// One JSON object a line
        #[arg(long)]
        json: bool,
    },
}
