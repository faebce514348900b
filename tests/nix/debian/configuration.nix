# What Debian's programs cannot do, and the links by which they find their libraries.
{ debian, lib, ... }:
{
  documentation.enable = false;
  documentation.man.enable = false;
  documentation.nixos.enable = false;
  system.disableInstallerTools = true;
  system.tools.nixos-rebuild.enable = false;
  environment.defaultPackages = lib.mkForce [ ];
  environment.usrbinenv = null;
  environment.stub-ld.enable = false;
  environment.ldso = null;
  system.activationScripts.binsh = lib.mkForce "";
  system.activationScripts.usrbinenv = lib.mkForce "";
  services.nscd.enable = false;
  system.nssModules = lib.mkForce [ ];
  security.enableWrappers = false;
  security.googleOsLogin.enable = lib.mkForce false;
  security.sudo.enable = false;
  services.lvm.enable = false;
  fonts.fontconfig.enable = false;
  xdg.autostart.enable = false; xdg.icons.enable = false; xdg.mime.enable = false; xdg.sounds.enable = false; xdg.menus.enable = false;
  i18n.defaultLocale = "C.UTF-8";
  console.enable = false;
  # Debian's dhcpcd separates privileges, which nixpkgs' hardened unit does not let it do.
  networking.useNetworkd = true;
  services.resolved.enable = false;
  systemd.network.wait-online.enable = false;
  # The directory that Debian's sshd locks its children into.
  systemd.tmpfiles.rules = [ "d /run/sshd 0755 root root - -" ];
  systemd.coredump.enable = false;
  security.pam.services.login.rules.session.lastlog.enable = lib.mkForce false;
  systemd.services.lastlog2-import.enable = lib.mkForce false;
  services.dbus.implementation = lib.mkForce "dbus";
  programs.command-not-found.enable = false; programs.nano.enable = false;
  services.logrotate.enable = false;
  boot.bcache.enable = false; boot.swraid.enable = false;
  nix.checkConfig = false;
  nix.channel.enable = false;
  networking.resolvconf.enable = false;
  boot.enableContainers = false;

  # Units of nixpkgs' systemd 260 that Debian's 257 has not.
  systemd.suppressedSystemUnits = [
    "systemd-udevd-varlink.socket" "systemd-boot-random-seed.service" "systemd-bless-boot.service" "systemd-update-utmp.service" "systemd-ask-password@.service" "systemd-ask-password.socket"
    "systemd-bootctl@.service" "systemd-bootctl.socket" "systemd-mute-console@.service" "systemd-mute-console.socket" "systemd-repart@.service" "systemd-repart.socket"
    "systemd-factory-reset-request.service" "systemd-factory-reset-reboot.service" "systemd-factory-reset@.service" "systemd-factory-reset.socket" "systemd-oomd.service" "systemd-oomd.socket"
    "systemd-journalctl.socket" "systemd-journalctl@.service" "systemd-coredump.socket" "systemd-coredump@.service"
    "systemd-networkd-varlink.socket" "systemd-networkd-resolve-hook.socket" "systemd-networkd-varlink-metrics.socket"
  ];
  boot.initrd.systemd.suppressedUnits = [
    "breakpoint-pre-udev.service" "breakpoint-pre-basic.service" "breakpoint-pre-mount.service" "breakpoint-pre-switch-root.service"
    "systemd-factory-reset-complete.service" "factory-reset-now.target"
  ];

  # Debian's programs look for their libraries here, in the initrd and in the system.
  boot.initrd.systemd.contents = {
    "/usr/lib".source = "${debian}/lib";
    "/lib64".source = "${debian}/lib64";
  };
  virtualisation.googleComputeRepart.root = [
    { path = "/usr"; symlink = "${debian}"; }
    { path = "/bin"; symlink = "usr/bin"; }
    { path = "/sbin"; symlink = "usr/bin"; }
    { path = "/lib"; symlink = "usr/lib"; }
    { path = "/lib64"; symlink = "usr/lib64"; }
  ];
}
