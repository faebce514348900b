# Early boot on the console, emergency shells without a password, and a root shell on the second serial port.
{ lib, ... }:

let
  # What the profiles of cloud images set, and what makes a failed boot vanish or keep silent.
  dropped = [
    "panic=1"
    "boot.panic_on_fail"
    "quiet"
  ];
in
{
  # A definition cannot take entries out of a list, nor replace it without losing those of everybody else.
  options.boot.kernelParams = lib.mkOption {
    apply = lib.filter (word: !(lib.elem word dropped));
  };

  config = {
    boot.consoleLogLevel = lib.mkForce 7;
    boot.kernelParams = [
      "printk.devkmsg=on"
      "rd.systemd.log_level=debug"
      "rd.systemd.log_target=console"
      # On a port of its own, from the start of either stage: on the console it would fight with the messages.
      "rd.systemd.debug_shell=ttyS1"
      "systemd.debug_shell=ttyS1"
      "systemd.setenv=SYSTEMD_SULOGIN_FORCE=1"
    ];
    boot.initrd.systemd.emergencyAccess = lib.mkForce true;
    systemd.enableEmergencyMode = lib.mkForce true;
    systemd.services."serial-getty@ttyS0" = {
      enable = lib.mkForce true;
      # A unit of its own would lack what the template has: Restart=, and ImportCredential= for an autologin.
      overrideStrategy = "asDropin";
    };
  };
}
