# Packages: derivations that the shell of the building machine makes, and names without content.
let
  lib = import ./lib.nix;

  make =
    name: attributes: script:
    derivation (
      attributes
      // {
        inherit name;
        system = "x86_64-linux";
        builder = "/bin/sh";
        # A builder that ends in another program than the shell may be taken for killed.
        args = [
          "-ec"
          "${script}\n:"
        ];
        PATH = "/usr/sbin:/usr/bin:/sbin:/bin";
      }
    );

  package = name: make name { } "mkdir -p $out/bin";

  pkgs = rec {
    runCommand = make;
    writeText = name: text: make name { inherit text; } "printf %s \"$text\" > $out";
    closureInfo =
      { rootPaths }:
      make "closure-info" {
        exportReferencesGraph = builtins.concatLists (
          builtins.genList (index: [
            "graph-${toString index}"
            (builtins.elemAt rootPaths index)
          ]) (builtins.length rootPaths)
        );
      } "mkdir $out; cat graph-* | grep '^/nix/store/' | sort -u > $out/store-paths; : > $out/registration";
    writeShellApplication =
      {
        name,
        runtimeInputs ? [ ],
        text,
      }:
      make name {
        script = "#!/bin/sh\nset -eu\nPATH=${lib.makeBinPath runtimeInputs}:$PATH\n${text}";
      } "mkdir -p $out/bin; printf %s \"$script\" > $out/bin/${name}; chmod +x $out/bin/${name}"
      // {
        meta.mainProgram = name;
      };
    callPackage =
      file: arguments:
      let
        function = if builtins.isFunction file then file else import file;
      in
      function (builtins.intersectAttrs (builtins.functionArgs function) pkgs // arguments);
    mkShell = { packages, ... }: make "shell" { inherit packages; } ": > $out";
    buildPackages = pkgs;
    python3 = package "python3" // {
      withPackages = _: package "python3-env";
    };
    inherit lib;
    # Every name that pyproject.toml asks for; tests/nix/conftest.py writes the file.
    python3Packages =
      lib.genAttrs (
        if builtins.pathExists ./python.json then builtins.fromJSON (builtins.readFile ./python.json) else [ ]
      ) package
      // {
        hatchling = package "hatchling";
        buildPythonPackage = attributes: package attributes.pname;
      };
  }
  // lib.listToAttrs (
    map
      (name: {
        inherit name;
        value = package name;
      })
      [
        "bubblewrap"
        "coreutils"
        "cpio"
        "dosfstools"
        "e2fsprogs"
        "erofs-utils"
        "gnumake"
        "gnutar"
        "kmod"
        "mtools"
        "nix"
        "openssl"
        "pigz"
        "qemu"
        "sqlite"
        "swtpm"
        "systemd"
        "util-linux"
        "zstd"
      ]
  );
in
pkgs
