# What the modules promise. Evaluated over option stubs by tests/nix/test_promises.py, and over nixpkgs by
# `nix flake check` (make nix-check).
{
  lib,
  evaluate,
  nixosModules,
}:

let
  contract = fromTOML (builtins.readFile ../../fixtures/contract.toml);
  inherit (contract) boot store;
  partition = name: lib.findFirst (p: p.name == name) null contract.partition;
  device = name: "/dev/disk/by-partlabel/${(partition name).label}";

  example = ../../nix/hosts;
  with' =
    module:
    (evaluate [
      example
      nixosModules.google-compute-repart
      module
    ]).config;
  config = with' { };
  inherit (config.virtualisation.googleComputeRepart) spec;
  debug = with' nixosModules.debug;
  bloat = with' {
    imports = [ nixosModules.bloat ];
    bloat.size = "10M";
    bloat.paths = 3;
  };
  overlayStore = with' { virtualisation.googleComputeRepart.localOverlayStore = true; };
  scripted = with' nixosModules.image-script;
  variant =
    (evaluate [
      {
        nixpkgs.hostPlatform = "x86_64-linux";
        system.stateVersion = "26.05";
      }
      nixosModules.image-variant
    ]).config;

  has = all: wanted: builtins.all (one: builtins.elem one all) wanted;
  lacks = all: unwanted: !builtins.any (one: builtins.elem one all) unwanted;
  panics = [
    "panic=1"
    "boot.panic_on_fail"
  ];
  store' = config.fileSystems.${store.mount};
  lower = config.fileSystems.${store.lower};
  partitions = config.image.repart.partitions;
  fields = names: map (p: map (name: p.${name} or null) names);

  equal = expected: actual: { inherit expected actual; };
  yes = equal true;

  promises = {
    "the partitions are the contract's, in its order" =
      equal
        (fields [ "type" "label" "filesystem" ] contract.partition)
        (
          map
            (name: [
              partitions.${name}.repartConfig.Type
              partitions.${name}.repartConfig.Label
              partitions.${name}.repartConfig.Format
            ])
            (builtins.attrNames partitions)
        );
    "the ESP has its size, the store that of its content, and root may grow" =
      equal
        [
          (partition "esp").size
          (partition "esp").size
          "best"
          (partition "root").size
          null
        ]
        [
          partitions."10-esp".repartConfig.SizeMinBytes
          partitions."10-esp".repartConfig.SizeMaxBytes
          partitions."20-store".repartConfig.Minimize
          partitions."30-root".repartConfig.SizeMinBytes
          (partitions."30-root".repartConfig.SizeMaxBytes or null)
        ];
    "the disk has the contract's sectors" = equal contract.disk.sector_size config.image.repart.sectorSize;
    "root is found by its partlabel and grows" =
      equal
        [
          (device "root")
          (partition "root").filesystem
          true
          true
        ]
        [
          config.fileSystems."/".device
          config.fileSystems."/".fsType
          config.fileSystems."/".autoResize
          config.boot.growPartition
        ];
    "the ESP is mounted by its partlabel" =
      equal
        [
          (device "esp")
          (partition "esp").filesystem
        ]
        [
          config.fileSystems."/boot".device
          config.fileSystems."/boot".fsType
        ];
    "the lower store is the erofs by partlabel, read-only, needed for boot, and never checked" =
      equal
        [
          (device "store")
          "erofs"
          true
          true
          true
        ]
        [
          lower.device
          lower.fsType
          (builtins.elem "ro" lower.options)
          lower.neededForBoot
          lower.noCheck
        ];
    "the overlay has the contract's directories, as stage 1 sees them" = yes (
      has store'.options [
        "lowerdir=/sysroot${store.lower}"
        "upperdir=/sysroot${store.upper}"
        "workdir=/sysroot${store.work}"
        "x-initrd.mount"
      ]
    );
    "fstab has a line for each mount of the contract" = yes (
      builtins.all (wanted: builtins.match ".*${wanted}.*" (builtins.replaceStrings [ "\n" ] [ "|" ] config.environment.etc.fstab.text) != null) [
        "${device "root"} / ext4"
        "${device "store"} ${store.lower} erofs [^ |]* 0 0"
        "overlay ${store.mount} overlay"
        "${device "esp"} /boot vfat"
      ]
    );
    "the store is bound over itself with the contract's options" = yes (
      has config.boot.nixStoreMountOpts store.bind_options
    );
    "stage 1 is systemd's, and reads the root from fstab" =
      equal
        [
          true
          true
        ]
        [
          config.boot.initrd.systemd.enable
          (builtins.elem "root=fstab" config.boot.kernelParams)
        ];
    "stage 1 can read a hypervisor's credentials" = yes (
      has config.boot.initrd.availableKernelModules [
        "dmi_sysfs"
        "qemu_fw_cfg"
      ]
    );
    "systemd-boot boots, and GRUB is off" =
      equal
        [
          true
          false
        ]
        [
          config.boot.loader.systemd-boot.enable
          config.boot.loader.grub.enable
        ];
    "the ESP has the contract's files in both images" =
      equal
        [
          true
          (builtins.attrNames spec.esp)
        ]
        [
          (has (builtins.attrNames spec.esp) [
            boot.loader
            boot.loader_config
            boot.entry
            boot.kernel
            boot.initrd
          ])
          (builtins.attrNames partitions."10-esp".contents)
        ];
    "the boot loader's menu is as NixOS has it at the first switch" =
      equal
        [
          "timeout 0|default nixos.conf|editor no|console-mode keep|"
          "sort-key nixos"
          "timeout menu-force|default nixos.conf|editor yes|console-mode max|"
          "sort-key z"
        ]
        (
          lib.concatMap
            (
              config:
              let
                text = path: builtins.replaceStrings [ "\n" ] [ "|" ] config.image.repart.partitions."10-esp".contents.${path}.source.text;
              in
              [
                (text boot.loader_config)
                (builtins.head (builtins.match "title NixOS[|](sort-key [a-z]*)[|].*" (builtins.unsafeDiscardStringContext (text boot.entry))))
              ]
            )
            [
              config
              (with' {
                boot.loader.timeout = lib.mkForce null;
                boot.loader.systemd-boot = {
                  editor = true;
                  consoleMode = "max";
                  sortKey = "z";
                };
              })
            ]
        );
    "the boot loader's further entries and files are on the ESP, and none of them in the place of the image's own" =
      let
        more = with' {
          boot.loader.systemd-boot.extraEntries."tool.conf" = "title Tool\nefi /efi/tool.efi\n";
          boot.loader.systemd-boot.extraEntries.${baseNameOf boot.entry} = "title Other\n";
          boot.loader.systemd-boot.extraFiles."efi/tool.efi" = ./promises.nix;
        };
        inherit (more.image.repart.partitions."10-esp") contents;
      in
      equal
        [
          "title Tool\nefi /efi/tool.efi\n"
          [
            "/efi/tool.efi"
            "/loader/entries/tool.conf"
          ]
          true
        ]
        [
          contents."/loader/entries/tool.conf".source.text
          (builtins.filter (path: !spec.esp ? ${path}) (
            builtins.attrNames more.virtualisation.googleComputeRepart.spec.esp
          ))
          (contents.${boot.entry}.source.text != "title Other\n")
        ];
    "the image's own boot entry goes when the boot loader's builder has written others" = yes (
      builtins.match "/nix/store/[^ ]+/rm -f /boot${boot.entry}\n" (
        builtins.unsafeDiscardStringContext config.boot.loader.systemd-boot.extraInstallCommands
      ) != null
    );
    "the ESP has room for the kernels of all generations that the boot loader offers" =
      equal 2 config.boot.loader.systemd-boot.configurationLimit;
    "the kernel's console is the contract's" = yes (
      lib.elem "console=${boot.console}" config.boot.kernelParams
    );
    "system profile and garbage collector's roots are shipped" = yes (
      has
        (map (entry: [
          entry.path
          entry.symlink
        ]) spec.root)
        [
          [
            "${store.state}/profiles/system-1-link"
            "${config.system.build.toplevel}"
          ]
          [
            "${store.state}/profiles/system"
            "system-1-link"
          ]
          [
            "${store.state}/gcroots/profiles"
            "${store.state}/profiles"
          ]
        ]
    );
    "image.json is of version 1, with paths and registration of one closure, and the contract" =
      equal
        [
          1
          true
          contract
          store.state
        ]
        [
          spec.version
          (dirOf spec.store.path_list == dirOf spec.registration)
          spec.contract
          spec.state
        ];
    "upstream's two definitions of the image give way to ours" =
      equal
        [
          "raw"
          config.system.build.image.drvPath
        ]
        [
          config.image.extension
          config.system.build.googleComputeImage.drvPath
        ];
    "the image is upstream's, made whole GiB long" = yes (
      config.system.build.image.drvPath != config.image.repart.image.drvPath
      && builtins.match ".*truncate --size=%1G ${config.image.baseName}.raw\n.*" config.system.build.image.postBuild != null
    );
    "the root partition is filled from one tree, since repart follows a link that it is to copy" =
      equal [ "/" ] (builtins.attrNames partitions."30-root".contents);
    "the store is the whole of its partition" = equal "/" partitions."20-store".nixStorePrefix;
    "the image's file has the version in its name" =
      equal "google-compute-repart_${config.system.nixos.version}" config.image.baseName;
    "an image that has an identity is called by it" =
      equal "appliance_7" (with' {
        system.image.id = "appliance";
        system.image.version = "7";
      }).image.baseName;
    "as a variant, the image leaves the machine and its other images alone" =
      equal
        [
          true
          false
        ]
        [
          (variant.image.modules ? google-compute-repart)
          (variant ? virtualisation.googleComputeRepart)
        ];
    "the erofs of upstream's builder has no hard links, and its ESP small clusters" =
      equal
        [
          true
          [ "-s1" ]
        ]
        [
          (lib.elem "--hard-dereference" config.image.repart.mkfsOptions.erofs)
          config.image.repart.mkfsOptions.vfat
        ];
    "the store is not optimised by itself" =
      equal
        [
          false
          false
        ]
        [
          (config.nix.settings.auto-optimise-store or false)
          config.nix.optimise.automatic
        ];
    "the example breaks no assertion" = equal [ ] (failed scripted);
    "the program that builds the image has its name" = equal "build-disk-image" scripted.system.build.imageScript.name;
    "a stock cloud image panics on failure and has no getty on its console" =
      equal
        [
          true
          false
          false
        ]
        [
          (has config.boot.kernelParams panics)
          config.systemd.enableEmergencyMode
          config.systemd.services."serial-getty@ttyS0".enable
        ];
    "debug does not panic, and keeps what others put on the command line" =
      equal
        [
          true
          true
        ]
        [
          (lacks debug.boot.kernelParams panics)
          (has debug.boot.kernelParams [
            "root=fstab"
            "console=${boot.console}"
          ])
        ];
    "debug shows early boot on the console" =
      equal
        [
          true
          7
        ]
        [
          (has debug.boot.kernelParams [
            "rd.systemd.log_level=debug"
            "rd.systemd.log_target=console"
          ])
          debug.boot.consoleLogLevel
        ];
    "debug gives a root shell on the second serial port in both stages, and not on the console" = yes (
      has debug.boot.kernelParams [
        "rd.systemd.debug_shell=${boot.debug_console}"
        "systemd.debug_shell=${boot.debug_console}"
      ]
    );
    "debug names no unit that NixOS has already" = yes (
      lacks debug.systemd.additionalUpstreamSystemUnits [ "debug-shell.service" ]
    );
    "debug's getty keeps what its template has" =
      equal "asDropin" debug.systemd.services."serial-getty@ttyS0".overrideStrategy;
    "debug opens emergency shells in both stages, and the getty" =
      equal
        [
          true
          true
          true
        ]
        [
          debug.boot.initrd.systemd.emergencyAccess
          debug.systemd.enableEmergencyMode
          debug.systemd.services."serial-getty@ttyS0".enable
        ];
    "bloat adds its paths to the closure" =
      equal 3 (
        builtins.length (builtins.filter (path: lib.elem (path.name or "") [ "bloat-0" "bloat-1" "bloat-2" ]) bloat.system.extraDependencies)
      );
    "the local overlay store has its own database, and Nix knows both" =
      equal
        [
          true
          "/nix/.ro-state"
          true
        ]
        [
          (has overlayStore.nix.settings.experimental-features [
            "local-overlay-store"
            "read-only-local-store"
          ])
          overlayStore.virtualisation.googleComputeRepart.spec.state
          (
            builtins.match "store = local-overlay://[?]lower-store=local%%3Freal%%3D.*&upper-layer=${store.upper}&check-mount=false" overlayStore.systemd.services.nix-daemon.environment.NIX_CONFIG
            != null
          )
        ];
    "with the local overlay store, everybody's Nix asks the daemon" =
      equal "daemon" overlayStore.nix.settings.store;
  };

  # What is refused: a module, and words of the sentence that says so.
  failed = config: map (one: one.message) (builtins.filter (one: !one.assertion) config.assertions);
  refuses = words: module: {
    expected = true;
    actual = builtins.any (message: builtins.match ".*${words}.*" message != null) (failed (with' module));
  };
  refusals = {
    "BIOS is refused" = refuses "set virtualisation.googleComputeImage.efi = true" {
      virtualisation.googleComputeImage.efi = lib.mkForce false;
    };
    "GRUB is refused" = refuses "set boot.loader.grub.enable = false" { boot.loader.grub.enable = true; };
    "a scripted stage 1 is refused" = refuses "set boot.initrd.systemd.enable = true" {
      boot.initrd.systemd.enable = false;
    };
    "a label that is longer than GPT allows is refused" = refuses "has 40 characters: GPT allows 1 to 36" {
      virtualisation.googleComputeRepart.contract = contract // {
        partition = map (
          p: if p.name == "store" then p // { label = "0123456789012345678901234567890123456789"; } else p
        ) contract.partition;
      };
    };
    "a label that udev writes otherwise is refused" = refuses "is not what its device is called by" {
      virtualisation.googleComputeRepart.contract = contract // {
        partition = map (p: if p.name == "store" then p // { label = "nix%store"; } else p) contract.partition;
      };
    };
    "an ESP that is mounted elsewhere is refused" = refuses "mounts the ESP at /boot" {
      boot.loader.efi.efiSysMountPoint = "/efi";
    };
    "a second partition for the boot loader is refused" = refuses "has no XBOOTLDR partition" {
      boot.loader.systemd-boot.xbootldrMountPoint = "/xbootldr";
    };
    "a root partition that is not the last is refused" = refuses "has to be the contract's last" {
      virtualisation.googleComputeRepart.contract = contract // {
        partition = [ (partition "root") ] ++ builtins.filter (p: p.name != "root") contract.partition;
      };
    };
    "optimising while adding is refused" = refuses "set nix.settings.auto-optimise-store = false" {
      nix.settings.auto-optimise-store = true;
    };
    "optimising by timer is refused" = refuses "set nix.optimise.automatic = false" {
      nix.optimise.automatic = true;
    };
    "optimising is accepted where it copies nothing up" = equal [ ] (
      failed (with' {
        virtualisation.googleComputeRepart.localOverlayStore = true;
        nix.settings.auto-optimise-store = true;
      })
    );
    "bloat of nothing is refused" = refuses "give a number of bytes such as" {
      imports = [ nixosModules.bloat ];
      bloat.size = "0";
    };
    "bloat of no size is refused" = refuses "give a number of bytes such as" {
      imports = [ nixosModules.bloat ];
      bloat.size = "much";
    };
    "a program without an image is refused" = {
      expected = true;
      actual = builtins.any (message: builtins.match ".*import google-compute-repart too.*" message != null) (
        failed (evaluate [
          nixosModules.image-script
          {
            nixpkgs.hostPlatform = "x86_64-linux";
            system.stateVersion = "26.05";
          }
        ]).config
      );
    };
  };

  all = promises // refusals;
in
{
  inherit all;
  broken = builtins.filter (name: all.${name}.expected != all.${name}.actual) (builtins.attrNames all);
}
