{
  description = "Proves, by booting it, that a disk image really boots; and a NixOS image to prove it of";

  inputs.nixpkgs.url = "github:NixOS/nixpkgs/nixos-26.05";

  outputs =
    { self, nixpkgs }:
    let
      inherit (nixpkgs) lib;
      system = "x86_64-linux";
      pkgs = nixpkgs.legacyPackages.${system};
      python = pkgs.python3Packages;
      inherit (fromTOML (builtins.readFile ./pyproject.toml)) project;

      # Python's names, as nixpkgs spells them.
      fromPython =
        requirement:
        let
          name = builtins.head (builtins.match "([A-Za-z0-9._-]+).*" requirement);
        in
        python.${lib.toLower (builtins.replaceStrings [ "." "_" ] [ "-" "-" ] name)};

      # Everything that `vmtests doctor` asks for, but mmdebstrap, which nixpkgs has not: the reference image needs it.
      tools = [
        pkgs.bubblewrap
        pkgs.cpio
        pkgs.dosfstools
        pkgs.e2fsprogs
        pkgs.erofs-utils
        pkgs.gnutar
        pkgs.kmod
        pkgs.mtools
        pkgs.nix
        pkgs.pigz
        pkgs.qemu
        pkgs.swtpm
        pkgs.systemd
        pkgs.util-linux
        pkgs.zstd
      ];

      vmtests = python.buildPythonPackage {
        pname = project.name;
        inherit (project) version;
        pyproject = true;
        src = self;
        build-system = [ python.hatchling ];
        dependencies = map fromPython project.dependencies;
        makeWrapperArgs = [
          "--prefix"
          "PATH"
          ":"
          (lib.makeBinPath tools)
        ];
        # Its own tests make a tools tree, for which they need a network.
        doCheck = false;
        meta.mainProgram = "vmtests";
      };

      inherit (self.nixosConfigurations.default.config.system) build;
      promises = import ./tests/nix/promises.nix {
        inherit lib;
        inherit (self) nixosModules;
        evaluate = modules: lib.nixosSystem { inherit modules; };
      };
    in
    {
      nixosModules = {
        bloat = ./nix/modules/bloat.nix;
        debug = ./nix/modules/debug.nix;
        google-compute-repart = ./nix/modules/google-compute-repart.nix;
        # The image beside those that nixpkgs has: nixos-rebuild build-image --image-variant google-compute-repart
        image-variant.image.modules.google-compute-repart = ./nix/modules/google-compute-repart.nix;
        image-script = {
          imports = [ ./nix/modules/image-script.nix ];
          imageScript.package = lib.mkDefault vmtests;
        };
      };

      nixosConfigurations.default = lib.nixosSystem {
        modules = [
          ./nix/hosts
          self.nixosModules.google-compute-repart
          self.nixosModules.image-script
        ];
      };

      packages.${system} = {
        inherit (build) image imageScript;
        inherit vmtests;
      };

      apps.${system} = {
        imageScript = {
          type = "app";
          program = "${build.imageScript}/bin/build-disk-image";
          meta.description = "Build the image in the current directory";
        };
        vmtests = {
          type = "app";
          program = "${vmtests}/bin/vmtests";
          meta.description = "Build, inspect and boot disk images";
        };
      };

      devShells.${system}.default = pkgs.mkShell {
        packages = tools ++ [
          pkgs.gnumake
          pkgs.python3
        ];
      };

      checks.${system} = {
        # Evaluated with the flake; the derivation only says so.
        promises = pkgs.runCommand "promises" { } (
          if promises.broken == [ ] then
            "touch $out"
          else
            throw "broken promises: ${lib.concatStringsSep "; " promises.broken}"
        );
        suite =
          pkgs.runCommand "suite"
            {
              nativeBuildInputs = [
                (pkgs.python3.withPackages (_: [ vmtests ]))
              ]
              ++ tools;
              requiredSystemFeatures = [ "kvm" ];
            }
            ''
              export HOME=$TMPDIR VMTESTS_CACHE=$TMPDIR/cache
              python -m pytest --pyargs vmtests --vm-image=$(echo ${build.image}/*.raw) --vm-results=$out
            '';
      };
    };
}
