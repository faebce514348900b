# The options of upstream's module, and the definitions that are in the way of ours.
{
  config,
  lib,
  pkgs,
  ...
}:

let
  inherit (lib) mkOption types;
  option = type: default: mkOption { inherit type default; };
  # Takes overrides as a package of nixpkgs does.
  make =
    attributes:
    pkgs.runCommand config.image.repart.name attributes "mkdir $out"
    // {
      overrideAttrs = f: make (attributes // f attributes);
    };
  closure = partition: "${pkgs.closureInfo { rootPaths = partition.storePaths; }}/store-paths";
in
{
  options.image = {
    baseName = mkOption { type = types.str; };
    extension = mkOption { type = types.str; };
    repart = {
      compression.algorithm = option types.str "zstd";
      compression.enable = option types.bool false;
      finalPartitions = mkOption {
        type = types.attrs;
        readOnly = true;
      };
      image = mkOption {
        type = types.package;
        readOnly = true;
      };
      mkfsOptions = option (types.attrsOf (types.listOf types.str)) { };
      name = mkOption { type = types.str; };
      package = option types.package pkgs.systemd;
      partitions = option (types.attrsOf (
        types.submodule {
          options = {
            contents = option (types.attrsOf (types.submodule { options.source = mkOption { type = types.path; }; })) { };
            nixStorePrefix = option types.path "/nix/store";
            repartConfig = mkOption { type = types.attrsOf types.unspecified; };
            storePaths = option (types.listOf types.path) [ ];
          };
        }
      )) { };
      sectorSize = option types.int 512;
      seed = option types.str "0867da16-f251-457d-a9e8-c31f9a3c220b";
      split = option types.bool false;
      version = option (types.nullOr types.str) config.system.image.version;
    };
  };

  config = {
    image.baseName =
      config.image.repart.name
      + lib.optionalString (config.image.repart.version != null) "_${config.image.repart.version}";
    image.extension = "raw";
    image.repart.name = lib.mkIf (config.system.image.id != null) (lib.mkOptionDefault config.system.image.id);
    image.repart.image = make { partitionsJSON = builtins.toJSON config.image.repart.finalPartitions; };
    image.repart.finalPartitions = lib.mapAttrs (
      _: partition:
      partition // lib.optionalAttrs (partition.storePaths != [ ]) { closure = closure partition; }
    ) config.image.repart.partitions;
    system.build.image = config.image.repart.image;
  };
}
