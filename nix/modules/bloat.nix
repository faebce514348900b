# Makes the system's closure larger, to see how an image behaves with a store of any size.
{
  config,
  lib,
  pkgs,
  ...
}:

let
  cfg = config.bloat;
  parsed = builtins.match "([0-9]+)([KMGT]?)" cfg.size;
  unit = {
    "" = 1;
    K = 1024;
    M = 1024 * 1024;
    G = 1024 * 1024 * 1024;
    T = 1024 * 1024 * 1024 * 1024;
  };
  # A leading zero would make fromJSON refuse the number.
  digits = builtins.head (builtins.match "0*([0-9]+)" (builtins.head parsed));
  bytes = if parsed == null then 0 else builtins.fromJSON digits * unit.${lib.last parsed};
  share = bytes / cfg.paths;

  path =
    index:
    let
      size = if index == 0 then bytes - share * (cfg.paths - 1) else share;
      compressible = size * cfg.compressible / 100;
    in
    pkgs.runCommand "bloat-${toString index}"
      {
        nativeBuildInputs = [ pkgs.buildPackages.openssl ];
        preferLocalBuild = true;
        allowSubstitutes = false;
      }
      ''
        mkdir $out
        # A stream cipher over zeros: random to a compressor, and the same each time.
        head -c ${toString (size - compressible)} /dev/zero \
          | openssl enc -aes-128-ctr -nosalt -K $(printf '%032x' ${toString (index + 1)}) -iv $(printf '%032x' 0) \
          | split --bytes=4M --suffix-length=6 --numeric-suffixes - $out/random-
        head -c ${toString compressible} /dev/zero | tr '\0' x \
          | split --bytes=4M --suffix-length=6 --numeric-suffixes - $out/text-
        :
      '';
in
{
  options.bloat = {
    size = lib.mkOption {
      type = lib.types.str;
      default = "1G";
      example = "40G";
      description = "Bytes of all paths together: a number, and one of K, M, G and T.";
    };

    paths = lib.mkOption {
      type = lib.types.ints.positive;
      default = 8;
      example = 1000;
      description = "The number of store paths.";
    };

    compressible = lib.mkOption {
      type = lib.types.ints.between 0 100;
      default = 50;
      example = 0;
      description = "How many percent of the bytes compress to nearly nothing; the rest does not compress.";
    };
  };

  config = {
    assertions = [
      {
        assertion = bytes >= unit.M;
        message = "bloat.size is \"${cfg.size}\": give a number of bytes such as \"512M\" or \"10G\", at least 1M.";
      }
    ];

    system.extraDependencies = lib.optionals (bytes >= unit.M) (lib.genList path cfg.paths);
  };
}
