# What upstream's module and the profiles that it imports define, where it is in the way of ours.
{
  config,
  lib,
  pkgs,
  ...
}:

{
  options.virtualisation.googleComputeImage.efi = lib.mkEnableOption "EFI booting";

  config = {
    boot.growPartition = true;
    boot.initrd.availableKernelModules = [ "nvme" ];
    boot.initrd.kernelModules = [ "virtio_scsi" ];
    boot.kernelParams = [
      # google-compute-config.nix
      "console=ttyS0"
      "panic=1"
      "boot.panic_on_fail"
      # profiles/headless.nix
      "panic=1"
      "boot.panic_on_fail"
      "vga=0x317"
      "nomodeset"
    ];
    boot.loader.grub = lib.mkMerge [
      { device = "/dev/sda"; }
      (lib.mkIf config.virtualisation.googleComputeImage.efi {
        device = lib.mkForce "nodev";
        efiInstallAsRemovable = true;
        efiSupport = true;
      })
    ];
    boot.loader.timeout = 0;
    fileSystems."/" = {
      autoResize = true;
      device = "/dev/disk/by-label/nixos";
      fsType = "ext4";
    };
    fileSystems."/boot" = lib.mkIf config.virtualisation.googleComputeImage.efi {
      device = "/dev/disk/by-label/ESP";
      fsType = "vfat";
    };
    image.extension = "raw.tar.gz";
    system.build.googleComputeImage = pkgs.runCommand "google-compute-image" { } "mkdir $out";
    system.build.image = config.system.build.googleComputeImage;
    systemd.enableEmergencyMode = false;
    systemd.services."serial-getty@ttyS0".enable = lib.mkDefault false;
  };
}
