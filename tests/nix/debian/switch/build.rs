//! dbus-codegen is not in Debian: what it would write of systemd's interfaces is in bus.rs, as far as it is used.

fn main() {
    let out = std::path::PathBuf::from(std::env::var("OUT_DIR").unwrap());
    let bus = std::fs::read_to_string("bus.rs").unwrap();
    let (systemd, logind) = bus.split_once("// org.freedesktop.login1\n").unwrap();
    std::fs::write(out.join("systemd_manager.rs"), systemd).unwrap();
    std::fs::write(out.join("logind_manager.rs"), logind).unwrap();
}
