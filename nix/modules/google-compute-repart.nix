# A Compute Engine image by systemd-repart: UEFI, the store in a read-only erofs below a writable overlay, root last
# and growing. Partition labels, mount points and files of the ESP come from the contract.
{
  config,
  lib,
  modulesPath,
  options,
  pkgs,
  ...
}:

let
  inherit (lib)
    concatMapStringsSep
    escapeShellArg
    mkDefault
    mkForce
    mkIf
    mkOption
    optional
    optionalAttrs
    optionals
    types
    ;

  cfg = config.virtualisation.googleComputeRepart;
  inherit (cfg) contract;
  inherit (contract) boot store;
  partition = name: lib.findFirst (p: p.name == name) (throw "the contract has no partition ${name}") contract.partition;
  esp = partition "esp";
  lower = partition "store";
  root = partition "root";
  device = p: "/dev/disk/by-partlabel/${p.label}";

  inherit (config.system.build) toplevel;
  closure = pkgs.closureInfo { rootPaths = [ toplevel ]; };

  # Where the database of the image is: local-overlay-store keeps it apart from what is registered later.
  state = if cfg.localOverlayStore then "/nix/.ro-state" else store.state;

  # What upstream's builder of the boot loader's entries writes at the first switch is there from the first boot on.
  systemdBoot = config.boot.loader.systemd-boot;
  loader = "${config.systemd.package}/lib/systemd/boot/efi/systemd-bootx64.efi";
  under =
    directory: f:
    lib.mapAttrs' (
      name: content: {
        name = directory + name;
        value = f name content;
      }
    );
  espFiles =
    under "/" (_: file: file) systemdBoot.extraFiles
    // under "/loader/entries/" pkgs.writeText systemdBoot.extraEntries
    // ownFiles;
  ownFiles = {
    ${boot.loader} = loader;
    # Where a later `bootctl update` looks.
    "/EFI/systemd/systemd-bootx64.efi" = loader;
    ${boot.loader_config} = pkgs.writeText "loader.conf" ''
      timeout ${if config.boot.loader.timeout == null then "menu-force" else toString config.boot.loader.timeout}
      default ${baseNameOf boot.entry}
      editor ${if systemdBoot.editor then "yes" else "no"}
      console-mode ${systemdBoot.consoleMode}
    '';
    ${boot.entry} = pkgs.writeText "nixos.conf" ''
      title NixOS
      sort-key ${systemdBoot.sortKey}
      linux ${boot.kernel}
      initrd ${boot.initrd}
      options init=${toplevel}/init ${toString config.boot.kernelParams}
    '';
    ${boot.kernel} = "${config.system.build.kernel}/${config.system.boot.loader.kernelFile}";
    ${boot.initrd} = "${config.system.build.initialRamdisk}/${config.system.boot.loader.initrdFile}";
  };

  rootEntries = [
    {
      path = "${store.state}/profiles/system-1-link";
      symlink = "${toplevel}";
    }
    {
      path = "${store.state}/profiles/system";
      symlink = "system-1-link";
    }
    {
      path = "${store.state}/gcroots/profiles";
      symlink = "${store.state}/profiles";
    }
  ]
  ++ cfg.root;

  # The same for the image that is built in the store, where files have neither owners nor modes of their own.
  rootTree =
    pkgs.runCommand "google-compute-root"
      {
        nativeBuildInputs = [
          pkgs.buildPackages.nix
          pkgs.buildPackages.sqlite
        ];
      }
      ''
        ${concatMapStringsSep "\n" (entry: ''
          mkdir -p "$(dirname $out${escapeShellArg entry.path})"
          ${
            if entry.symlink or null != null then
              "ln -s ${escapeShellArg entry.symlink} $out${escapeShellArg entry.path}"
            else if entry.source or null != null then
              "cp -rT --no-preserve=mode ${entry.source} $out${escapeShellArg entry.path}"
            else
              "mkdir -p $out${escapeShellArg entry.path}"
          }
        '') rootEntries}
        # Nix wants a user and a home.
        export USER=nobody HOME=$TMPDIR
        nix-store --store "$TMPDIR/image" --load-db < ${closure}/registration
        sqlite3 $TMPDIR/image/nix/var/nix/db/db.sqlite "UPDATE ValidPaths SET registrationTime = 1"
        rm -f $TMPDIR/image/nix/var/nix/db/{big-lock,reserved}
        mkdir -p $out${state}
        cp -r $TMPDIR/image/nix/var/nix/db $out${state}/db
      '';

  definition =
    p:
    {
      Type = p.type;
      Label = p.label;
      Format = p.filesystem;
    }
    // optionalAttrs (p ? size) { SizeMinBytes = p.size; }
    // optionalAttrs (p ? size && !(p.grow or false)) { SizeMaxBytes = p.size; }
    // optionalAttrs (p.read_only or false) { Minimize = "best"; };

  # upstream's builder, with two changes. systemd-repart follows a link that is itself the source of a copy, and a store
  # path may be a link: those are copied with a directory that holds them. And the disk is one of whole GiB, as Compute
  # Engine asks for: the second table goes to its new end.
  image = config.image.repart.image.overrideAttrs (old: {
    postPatch = (old.postPatch or "") + ''
      definition=$finalRepartDefinitions/20-${lower.name}.conf
      mkdir links
      sed -n 's/^CopyFiles=\(.*\):.*/\1/p' "$definition" | while read -r path; do
        [ -L "$path" ] || continue
        cp -a "$path" links/
        sed -i "\\|^CopyFiles=$path:|d" "$definition"
      done
      echo "CopyFiles=$PWD/links:/" >> "$definition"
    '';
    postBuild = (old.postBuild or "") + ''
      truncate --size=%1G ${config.image.baseName}.raw
      sfdisk --relocate gpt-bak-std ${config.image.baseName}.raw
    '';
  });

  # What this module sets or reads of NixOS, and a release may not have yet, or any more.
  absent = lib.filter (name: !lib.hasAttrByPath (lib.splitString "." name) options) [
    "boot.initrd.availableKernelModules"
    "boot.initrd.systemd.enable"
    "boot.loader.efi.efiSysMountPoint"
    "boot.loader.systemd-boot.configurationLimit"
    "boot.loader.systemd-boot.consoleMode"
    "boot.loader.systemd-boot.editor"
    "boot.loader.systemd-boot.extraEntries"
    "boot.loader.systemd-boot.extraFiles"
    "boot.loader.systemd-boot.extraInstallCommands"
    "boot.loader.systemd-boot.sortKey"
    "boot.loader.systemd-boot.xbootldrMountPoint"
    "boot.loader.timeout"
    "image.baseName"
    "image.extension"
    "image.repart.compression.algorithm"
    "image.repart.image"
    "image.repart.mkfsOptions"
    "image.repart.partitions"
    "image.repart.sectorSize"
    "image.repart.version"
    "nix.optimise.automatic"
    "nix.settings"
    "system.image.id"
    "system.image.version"
    "systemd.tmpfiles.rules"
    "virtualisation.googleComputeImage.efi"
  ];
  complete = lib.throwIf (absent != [ ]) (
    "google-compute-repart is made for NixOS 26.05 to 26.11: "
    + "${lib.trivial.release} has no option ${lib.concatStringsSep ", " absent}."
  );
in
{
  imports = [
    "${modulesPath}/virtualisation/google-compute-image.nix"
    "${modulesPath}/image/repart.nix"
  ];

  options.virtualisation.googleComputeRepart = {
    contract = mkOption {
      type = types.attrs;
      default = builtins.fromTOML (builtins.readFile ../../fixtures/contract.toml);
      defaultText = lib.literalExpression "builtins.fromTOML (builtins.readFile fixtures/contract.toml)";
      example = lib.literalExpression "builtins.fromTOML (builtins.readFile ./contract.toml)";
      description = ''
        What the image promises: partitions, mounts, files of the ESP and names of units. Whatever differs from the
        default has to be given to the tests too.
      '';
    };

    compression = mkOption {
      type = types.str;
      default = "none";
      example = "lz4hc,9";
      description = "The store's compression, as {manpage}`mkfs.erofs(1)` takes it after `-z`, or `none`.";
    };

    localOverlayStore = mkOption {
      type = types.bool;
      default = false;
      example = true;
      description = ''
        Whether Nix knows that its store is an overlay (the experimental `local-overlay-store`): garbage collection
        then leaves no whiteouts, and optimising copies nothing up.
      '';
    };

    root = mkOption {
      type = types.listOf (types.attrsOf (types.nullOr types.str));
      default = [ ];
      example = lib.literalExpression ''
        [
          {
            path = "/etc/motd";
            source = "''${./motd}";
            mode = "0644";
          }
        ]
      '';
      description = ''
        What else is on the root partition: entries with `path` and either `source` or `symlink`, or neither for an
        empty directory. `mode` is kept by `imageScript` only.
      '';
    };

    spec = mkOption {
      type = types.attrs;
      readOnly = true;
      internal = true;
      description = "The content of image.json (docs/image-json.md), from which `imageScript` builds.";
    };
  };

  config = complete {
    assertions = [
      {
        assertion = config.virtualisation.googleComputeImage.efi;
        message = "google-compute-repart boots by UEFI only: set virtualisation.googleComputeImage.efi = true.";
      }
      {
        assertion = !config.boot.loader.grub.enable;
        message = "google-compute-repart boots with systemd-boot: set boot.loader.grub.enable = false.";
      }
      {
        assertion = config.boot.initrd.systemd.enable;
        message = "google-compute-repart mounts its store with systemd in stage 1: set boot.initrd.systemd.enable = true.";
      }
      {
        # Upstream's module mounts it there, too.
        assertion = config.boot.loader.efi.efiSysMountPoint == "/boot";
        message = "google-compute-repart mounts the ESP at /boot: set boot.loader.efi.efiSysMountPoint = \"/boot\".";
      }
      {
        assertion = systemdBoot.xbootldrMountPoint == null;
        message = "google-compute-repart has no XBOOTLDR partition: set boot.loader.systemd-boot.xbootldrMountPoint = null.";
      }
      {
        assertion = cfg.localOverlayStore || !(config.nix.settings.auto-optimise-store or false);
        message = "Hard links between store paths would copy the read-only store up: set nix.settings.auto-optimise-store = false, or virtualisation.googleComputeRepart.localOverlayStore = true.";
      }
      {
        assertion = cfg.localOverlayStore || !config.nix.optimise.automatic;
        message = "Optimising the store would copy the read-only part of it up: set nix.optimise.automatic = false, or virtualisation.googleComputeRepart.localOverlayStore = true.";
      }
      {
        assertion = lib.last contract.partition == root;
        message = "google-compute-repart grows the root partition at boot: it has to be the contract's last.";
      }
    ]
    # Others are written otherwise in udev's link, and a percent begins a specifier of systemd-repart.
    ++ map (p: {
      assertion = builtins.match "[[:alnum:]#+.:=@_-]*" p.label != null;
      message = "The partition label \"${p.label}\" is not what its device is called by: it may have letters, digits and #+-.:=@_.";
    }) contract.partition
    ++ map (p: {
      assertion = builtins.stringLength p.label >= 1 && builtins.stringLength p.label <= 36;
      message = "The partition label \"${p.label}\" has ${toString (builtins.stringLength p.label)} characters: GPT allows 1 to 36.";
    }) contract.partition;

    boot.initrd.systemd.enable = mkDefault true;
    # By these PID 1 reads the credentials that a hypervisor hands in (systemd.system-credentials(7)).
    boot.initrd.availableKernelModules = [
      "dmi_sysfs"
      "qemu_fw_cfg"
    ];

    boot.loader.systemd-boot = {
      enable = true;
      editor = mkDefault false;
      # The image's own entry names one system for ever; once the boot loader's builder has written entries, it goes.
      # switch-to-configuration runs this with systemd's search path alone.
      extraInstallCommands = "${pkgs.coreutils}/bin/rm -f ${config.boot.loader.efi.efiSysMountPoint}${boot.entry}\n";
      # Each generation keeps a kernel and an initrd on the ESP, about 45 MB: the current one, and one to go back to.
      configurationLimit = mkDefault 2;
    };

    fileSystems = {
      "/" = {
        device = mkForce (device root);
        fsType = mkForce root.filesystem;
        autoResize = true;
      };
      "/boot" = {
        device = mkForce (device esp);
        fsType = mkForce esp.filesystem;
        options = [ "umask=0077" ];
      };
      ${store.lower} = {
        device = device lower;
        fsType = lower.filesystem;
        options = [ "ro" ];
        neededForBoot = true;
        # fsck.erofs is not in the initrd, and there is nothing that it could repair.
        noCheck = true;
      };
      ${store.mount}.overlay = {
        lowerdir = [ store.lower ];
        upperdir = store.upper;
        workdir = store.work;
      };
    };

    nix.settings = mkIf cfg.localOverlayStore {
      experimental-features = [
        "local-overlay-store"
        "read-only-local-store"
      ];
      # Only root could open the overlay itself: everybody, root too, asks the daemon.
      store = "daemon";
    };
    # The kernel shows the overlay's directories below /sysroot, where stage 1 mounted them, so Nix cannot check.
    systemd.services.nix-daemon.environment = mkIf cfg.localOverlayStore {
      # NIX_CONFIG is read last (nix.conf(5)); a unit's percent signs are doubled (systemd.unit(5), SPECIFIERS).
      NIX_CONFIG = builtins.replaceStrings [ "%" ] [ "%%" ] (
        "store = local-overlay://?lower-store="
        + lib.escapeURL "local?real=${store.lower}&state=${state}&read-only=true"
        + "&upper-layer=${store.upper}&check-mount=false"
      );
    };

    # Files that were built in the store are read-only.
    systemd.tmpfiles.rules = map (path: "z ${path} 0755 root root - -") (
      [
        "/nix"
        "/nix/var"
        store.state
        "${store.state}/gcroots"
        "${store.state}/profiles"
      ]
      ++ optionals (!cfg.localOverlayStore) [ "${state}/db" ]
    )
    ++ optional (!cfg.localOverlayStore) "z ${state}/db/db.sqlite 0644 root root - -";

    virtualisation.googleComputeRepart.spec = {
      version = 1;
      name = config.image.baseName;
      esp = lib.mapAttrs (_: file: "${file}") espFiles;
      store = {
        directory = builtins.storeDir;
        path_list = "${closure}/store-paths";
      };
      registration = "${closure}/registration";
      inherit state;
      root = rootEntries;
      inherit (cfg) compression;
      inherit contract;
    };

    image.repart = {
      # What the system is called, where it is (system.image.id, upstream's own default); upstream's own images have
      # the version in the file's name too.
      name = mkIf (config.system.image.id == null) (mkDefault "google-compute-repart");
      version = mkIf (config.system.image.version == null) (mkDefault config.system.nixos.version);
      sectorSize = contract.disk.sector_size;
      partitions = {
        "10-${esp.name}" = {
          contents = lib.mapAttrs (_: source: { inherit source; }) espFiles;
          repartConfig = definition esp;
        };
        "20-${lower.name}" = {
          # The store is the whole partition.
          nixStorePrefix = "/";
          storePaths = [ toplevel ];
          # The local overlay store wants it in the layer that it cannot write to.
          contents."/.links".source = pkgs.runCommand "empty" { } "mkdir $out";
          repartConfig = definition lower;
        };
        "30-${root.name}" = {
          # Whole, because repart follows a link that is itself the source of a copy.
          contents."/".source = rootTree;
          repartConfig = definition root;
        };
      };
      mkfsOptions = {
        # An optimised store on the building machine has hard links, which must not be in the image.
        erofs = [
          "--all-root"
          "--hard-dereference"
        ]
        ++ optional (cfg.compression != "none") "-z${cfg.compression}";
        # FAT32 of less than 260 MiB has too few clusters for OVMF unless a cluster is one sector.
        vfat = [ "-s1" ];
      };
    };

    # Both modules that are imported define these.
    image.extension = mkForce (
      if !config.image.repart.compression.enable then
        "raw"
      else if config.image.repart.compression.algorithm == "xz" then
        "raw.xz"
      else
        "raw.zst"
    );
    system.build = {
      imageSpec = pkgs.writeText "image.json" (builtins.toJSON cfg.spec);
      image = mkForce image;
      googleComputeImage = mkForce image;
    };
  };
}
