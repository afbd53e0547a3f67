//! Images that are out to get the host: what runs in a container reaches the program that started
//! it by `/proc/self/exe`, and changes nothing about it.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;

use super::{PLYFS, Stand, stderr, stdout, text};

/// A library that does all it can to the program it is loaded into, and says what came of it.
const EVIL: &str = r#"
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

static void say(const char *what, int returned) {
  printf("%s: %d\n", what, returned < 0 ? errno : 0);
}

__attribute__((constructor)) static void evil(void) {
  char link[64];
  int fd = open("/proc/self/exe", O_RDONLY);
  say("read", fd);
  say("write", open("/proc/self/exe", O_WRONLY));
  snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
  say("reopen", open(link, O_RDWR));
  say("truncate", truncate(link, 1));
  say("chmod", fchmod(fd, 07777));
  say("chown", fchown(fd, 12345, 12345));
  say("times", futimens(fd, NULL));
  say("attribute", fsetxattr(fd, "user.evil", "x", 1, 0));
  say("first process", open("/proc/1/exe", O_RDONLY));
  fflush(stdout);
  _exit(42);
}
"#;

/// The program's file: its mode, owner, times and content.
fn state(program: &Path) -> (u32, u32, [i64; 2], Vec<u8>) {
    let meta = fs::metadata(program).unwrap();
    let times = [meta.mtime_nsec(), meta.ctime_nsec()];
    (meta.mode(), meta.uid(), times, fs::read(program).unwrap())
}

#[test]
fn a_container_cannot_change_the_program_that_started_it() {
    let stand = Stand::with_small();
    let evil = stand.0.path().join("evil");
    fs::create_dir(&evil).unwrap();
    fs::write(evil.join("evil.c"), EVIL).unwrap();
    let library = evil.join("evil.so");
    let mut cc = Command::new("cc");
    cc.args(["-shared", "-fPIC", "-o", text(&library), text(&evil.join("evil.c"))]);
    let output = cc.output().unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    fs::write(evil.join("script"), "#!/proc/self/exe\n").unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    fs::set_permissions(evil.join("script"), mode).unwrap();
    let before = state(Path::new(PLYFS));
    let volume = format!("{}:/evil", text(&evil));
    for command in ["/proc/self/exe", "/evil/script"] {
        // An image brings the libraries that the program needs; here they are the host's.
        let mut arguments = vec!["run", "-e", "LD_PRELOAD=/evil/evil.so", "-v", &volume];
        for libraries in ["/usr:/usr:ro", "/lib:/lib:ro", "/lib64:/lib64:ro"] {
            arguments.extend(["-v", libraries]);
        }
        arguments.extend(["small", "--", command]);
        let output = stand.plyfs(&arguments);
        let said = stdout(&output);
        assert_eq!(output.status.code(), Some(42), "{command}: {said}{}", stderr(&output));
        // A program that runs is busy; what is not written to is no less changed by the others.
        let refused = |what: &str, errno: i32| said.contains(&format!("\n{what}: {errno}\n"));
        for what in ["write", "reopen"] {
            let either = refused(what, libc::EROFS) || refused(what, libc::ETXTBSY);
            assert!(either, "{command}: {what}: {said}");
        }
        for what in ["truncate", "chmod", "chown", "times", "attribute"] {
            assert!(refused(what, libc::EROFS), "{command}: {what}: {said}");
        }
        assert!(said.starts_with("read: 0\n"), "it can be read: {said}");
        assert!(said.contains(&format!("first process: {}\n", libc::EACCES)), "{said}");
    }
    assert!(state(Path::new(PLYFS)) == before);
    stand.is_sound();
}
