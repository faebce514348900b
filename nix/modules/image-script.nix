# `system.build.imageScript`: a program that builds the image where it is run, beside the store and not in it.
{
  config,
  lib,
  options,
  pkgs,
  ...
}:

{
  options.imageScript.package = lib.mkOption {
    type = lib.types.package;
    example = lib.literalExpression "inputs.vmtests.packages.x86_64-linux.vmtests";
    description = "The package with the program `vmtests`, which assembles the disk from image.json.";
  };

  config = {
    assertions = [
      {
        assertion = options ? virtualisation.googleComputeRepart;
        message = "image-script needs an image to build: import google-compute-repart too.";
      }
    ];

    system.build.imageScript = pkgs.writeShellApplication {
      name = "build-disk-image";
      runtimeInputs = [ config.imageScript.package ];
      # Progress goes to standard error; standard output has the archive's path alone.
      text = ''
        exec vmtests build --spec ${config.system.build.imageSpec} \
          --archive "$PWD/${config.image.baseName}.tar.gz" "$@"
      '';
    };
  };
}
