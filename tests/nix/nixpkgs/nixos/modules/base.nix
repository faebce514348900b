# The options of NixOS that the project's modules read or define, and as much behaviour as a promise needs.
{
  config,
  lib,
  pkgs,
  ...
}:

let
  inherit (lib) mkOption types;
  option = type: default: mkOption { inherit type default; };
  failed = builtins.filter (one: !one.assertion) config.assertions;
  stage1 = builtins.filter (mount: mount.neededForBoot) (builtins.attrValues config.fileSystems);

  # As tasks/filesystems.nix and tasks/filesystems/overlayfs.nix write it.
  line =
    mount:
    builtins.concatStringsSep " " [
      mount.device
      mount.mountPoint
      mount.fsType
      (builtins.concatStringsSep "," mount.options)
      "0"
      (
        if mount.noCheck || mount.fsType == "overlay" then
          "0"
        else if mount.mountPoint == "/" then
          "1"
        else
          "2"
      )
    ];

  fileSystem =
    { config, name, ... }:
    {
      options = {
        device = option (types.nullOr types.str) null;
        fsType = mkOption { type = types.str; };
        mountPoint = option types.str name;
        options = option (types.listOf types.str) [ "defaults" ];
        autoResize = option types.bool false;
        noCheck = option types.bool false;
        neededForBoot = option types.bool (
          builtins.elem name [
            "/"
            "/nix"
            "/nix/store"
          ]
        );
        overlay = {
          lowerdir = option (types.nullOr (types.listOf types.str)) null;
          upperdir = option (types.nullOr types.str) null;
          workdir = option (types.nullOr types.str) null;
        };
      };
      config = {
        device = lib.mkIf (config.overlay.lowerdir != null) (lib.mkDefault "overlay");
        fsType = lib.mkIf (config.overlay.lowerdir != null) "overlay";
        options = lib.mkMerge [
          (lib.mkIf config.autoResize [ "x-systemd.growfs" ])
          (lib.mkIf config.neededForBoot [ "x-initrd.mount" ])
          (lib.mkIf (config.overlay.lowerdir != null) [
            "lowerdir=${lib.concatMapStringsSep ":" (path: "/sysroot${path}") config.overlay.lowerdir}"
            "upperdir=/sysroot${toString config.overlay.upperdir}"
            "workdir=/sysroot${toString config.overlay.workdir}"
          ])
        ];
      };
    };
in
{
  options = {
    assertions = option (types.listOf types.unspecified) [ ];
    nixpkgs.hostPlatform = mkOption { type = types.str; };
    boot = {
      consoleLogLevel = option types.int 4;
      growPartition = option types.bool false;
      kernelParams = mkOption {
        type = types.listOf types.str;
        default = [ ];
        description = "Parameters of the kernel.";
      };
      initrd.availableKernelModules = option (types.listOf types.str) [ ];
      initrd.kernelModules = option (types.listOf types.str) [ ];
      initrd.systemd.enable = option types.bool false;
      initrd.systemd.emergencyAccess = option types.bool false;
      loader.efi.efiSysMountPoint = option types.str "/boot";
      loader.grub.device = option types.str "";
      loader.grub.efiInstallAsRemovable = option types.bool false;
      loader.grub.efiSupport = option types.bool false;
      loader.grub.enable = option types.bool true;
      loader.systemd-boot.configurationLimit = option (types.nullOr types.int) null;
      loader.systemd-boot.consoleMode = option types.str "keep";
      loader.systemd-boot.editor = option types.bool true;
      loader.systemd-boot.enable = option types.bool false;
      loader.systemd-boot.extraEntries = option (types.attrsOf types.lines) { };
      loader.systemd-boot.extraFiles = option (types.attrsOf types.path) { };
      loader.systemd-boot.extraInstallCommands = option types.lines "";
      loader.systemd-boot.sortKey = option types.str "nixos";
      loader.systemd-boot.xbootldrMountPoint = option (types.nullOr types.str) null;
      loader.timeout = option (types.nullOr types.int) 5;
      nixStoreMountOpts = option (types.listOf types.str) [
        "ro"
        "nodev"
        "nosuid"
      ];
    };
    environment.etc = option (types.attrsOf types.attrs) { };
    fileSystems = option (types.attrsOf (types.submodule fileSystem)) { };
    image.modules = option (types.attrsOf types.unspecified) { };
    nix.optimise.automatic = option types.bool false;
    nix.settings = option (types.attrsOf types.unspecified) { };
    services.nginx.enable = option types.bool false;
    system.boot.loader.initrdFile = option types.str "initrd";
    system.boot.loader.kernelFile = option types.str "bzImage";
    system.build = option (types.lazyAttrsOf types.unspecified) { };
    system.extraDependencies = option (types.listOf types.path) [ ];
    system.image.id = option (types.nullOr types.str) null;
    system.image.version = option (types.nullOr types.str) null;
    system.nixos.version = option types.str "26.05";
    system.stateVersion = mkOption { type = types.str; };
    systemd.additionalUpstreamSystemUnits = option (types.listOf types.str) [ ];
    systemd.enableEmergencyMode = option types.bool true;
    systemd.package = option types.package pkgs.systemd;
    systemd.services = option (types.attrsOf (
      types.submodule {
        options = {
          enable = option types.bool true;
          environment = option (types.attrsOf types.str) { };
          overrideStrategy = option types.str "asDropinIfExists";
        };
      }
    )) { };
    systemd.tmpfiles.rules = option (types.listOf types.str) [ ];
  };

  config = {
    boot.kernelParams = [
      "root=fstab"
      "loglevel=${toString config.boot.consoleLogLevel}"
    ];
    boot.loader.grub.enable = lib.mkIf config.boot.loader.systemd-boot.enable (lib.mkDefault false);
    environment.etc.fstab.text = lib.concatMapStringsSep "\n" line (builtins.attrValues config.fileSystems);
    system.build = {
      kernel = lib.mkDefault (pkgs.runCommand "linux" { } "mkdir $out; : > $out/bzImage");
      initialRamdisk = lib.mkDefault (
        pkgs.runCommand "initrd" {
          fstab = lib.concatMapStringsSep "\n" line stage1;
        } "mkdir $out; : > $out/initrd"
      );
      toplevel = lib.mkDefault (
        if failed == [ ] then
          pkgs.runCommand "nixos-system" {
            dependencies = config.system.extraDependencies;
            kernel = config.system.build.kernel;
          } "mkdir $out; : > $out/init"
        else
          throw "\nFailed assertions:\n${lib.concatMapStringsSep "\n" (one: "- ${one.message}") failed}"
      );
    };
  };
}
