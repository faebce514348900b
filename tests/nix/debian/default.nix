# A system of the real nixpkgs, with Debian's programs in the place of compiled packages: every module, unit, builder and
# script is nixpkgs' own. nix-build tests/nix/debian --arg nixpkgs PATH --argstr tree TREE -A toplevel
{
  # A checkout of nixpkgs.
  nixpkgs,
  # An unpacked Debian of packages.txt.
  tree,
  # nixpkgs' switch-to-configuration, compiled.
  switch,
  modules ? [ ],
}:

let
  system = "x86_64-linux";
  lib = import (nixpkgs + "/lib");

  # A derivation that the shell makes; it ends in a builtin, since Nix may take another last program for killed.
  raw =
    name: script:
    derivation {
      inherit name system;
      builder = "/bin/bash";
      PATH = "/usr/bin:/usr/sbin";
      args = [
        "-euc"
        "${script}\n:"
      ];
    };

  merged = derivation {
    name = "debian";
    inherit system tree;
    outputs = [
      "out"
      "kernel"
    ];
    builder = "/bin/bash";
    PATH = "/usr/bin:/usr/sbin";
    args = [
      "-eu"
      ./merge.sh
    ];
  };

  kernelRelease = builtins.head (builtins.attrNames (builtins.readDir (/. + "${tree}/usr/lib/modules")));
  kernelTree = raw "linux-debian" ''
    mkdir -p $out/lib
    ln -s ${merged.kernel}/modules $out/lib/modules
    ln -s ${merged.kernel}/vmlinuz-${kernelRelease} $out/bzImage
    ln -s ${merged.kernel}/config-${kernelRelease} $out/config
    ln -s ${merged.kernel}/System.map-${kernelRelease} $out/System.map
  '';

  # A derivation, with what modules read of a package besides its path.
  dress =
    name: version: drv: extra:
    let
      self =
        drv
        // {
          pname = name;
          name = "${name}-${version}";
          inherit version;
          meta = {
            available = true;
            badPlatforms = [ ];
            broken = false;
            description = name;
            homepage = "";
            license = lib.licenses.mit;
            longDescription = "";
            mainProgram = extra.mainProgram or name;
            maintainers = [ ];
            outputsToInstall = [ "out" ];
            platforms = lib.platforms.linux;
            priority = 5;
            teams = [ ];
          };
          passthru = { };
          override = _: self;
          overrideAttrs = _: self;
          overrideDerivation = _: self;
          outputs = [ "out" ];
          outputName = "out";
        }
        // lib.genAttrs [
          "bin"
          "data"
          "debug"
          "dev"
          "doc"
          "getent"
          "guest"
          "info"
          "lib"
          "login"
          "man"
          "mount"
          "out"
          "su"
          "swap"
        ] (_: self)
        // extra;
    in
    self;

  debian = dress "debian" "13" merged { };

  # Links to these programs of the tree, and to whole directories of it.
  subset =
    name: programs: directories:
    raw name ''
      mkdir -p $out/bin
      ln -s bin $out/sbin
      for program in ${toString programs}; do
        if [ -e ${debian}/bin/$program ]; then
          ln -s ${debian}/bin/$program $out/bin/
        else
          echo "absent: $program"
        fi
      done
      for directory in ${toString directories}; do
        mkdir -p $out/$(dirname $directory)
        ln -s ${debian}/$directory $out/$directory
      done
    '';

  # Sources are not to be had. What needs one evaluates, and fails to build with a name that tells.
  unfetched =
    arguments:
    let
      given = if lib.isFunction arguments then lib.fix arguments else arguments;
      url = toString (
        given.url or (lib.head (given.urls or [ "${given.owner or ""}/${given.repo or "?"}" ]))
      );
      name = lib.strings.sanitizeDerivationName (given.name or (baseNameOf url));
    in
    raw "source-of-${name}" "echo ${lib.escapeShellArg "no source: ${url}"}; exit 1"
    // {
      inherit name url;
      gitRepoUrl = "";
      hash = "";
      meta = { };
      outputHash = "";
      outputHashAlgo = "sha256";
      override = _: unfetched arguments;
      overrideAttrs = _: unfetched arguments;
      owner = "";
      passthru = { };
      rev = "";
      src = "";
      tag = "";
      urls = [ url ];
    };

  # One stage: nixpkgs' generic builder with the tree as its only input.
  stages =
    {
      config,
      lib,
      localSystem,
      overlays,
      ...
    }:
    let
      cc = debian // {
        bintools = debian // {
          bintools = debian;
          dynamicLinker = "/lib64/ld-linux-x86-64.so.2";
          isLLVM = false;
        };
        cc = debian // {
          isGNU = true;
          lib = debian;
        };
        isArocc = false;
        isClang = false;
        isGNU = true;
        isZig = false;
        libc = dress "glibc" "2.41" (subset "glibc-bin" [ "getconf" "getent" "iconv" "ldd" "locale" ] [ ]) { };
        libcxx = null;
        nativeLibc = false;
        nativeTools = false;
        targetPrefix = "";
      };
      stdenv = import (nixpkgs + "/pkgs/stdenv/generic") { defaultConfig = config; } {
        name = "stdenv-debian";
        buildPlatform = localSystem;
        hostPlatform = localSystem;
        targetPlatform = localSystem;
        preHook = "export NIX_ENFORCE_PURITY=";
        initialPath = [ debian ];
        shell = "${debian}/bin/bash";
        fetchurlBoot = unfetched;
        inherit cc config;
      };
    in
    [
      (
        { }:
        {
          __raw = true;
          inherit stdenv;
        }
      )
      (_: { inherit config overlays stdenv; })
    ];

  pkgs = import (nixpkgs + "/pkgs/top-level") {
    localSystem = { inherit system; };
    config = {
      allowBroken = true;
      allowUnsupportedSystem = true;
    };
    stdenvStages = stages;
    overlays = [
      (import ./overlay.nix {
        inherit
          debian
          dress
          kernelRelease
          kernelTree
          raw
          subset
          switch
          unfetched
          ;
      })
    ];
  };

  nixos = import (nixpkgs + "/nixos/lib/eval-config.nix") {
    inherit lib;
    system = null;
    modules = [
      ../../../nix/hosts
      ../../../nix/modules/google-compute-repart.nix
      ./configuration.nix
      {
        nixpkgs.pkgs = pkgs;
        _module.args = { inherit debian; };
      }
    ]
    ++ modules;
  };
in
{
  inherit pkgs;
  inherit (nixos) config options;
  inherit (nixos.config.system.build)
    image
    imageSpec
    initialRamdisk
    toplevel
    ;
}
