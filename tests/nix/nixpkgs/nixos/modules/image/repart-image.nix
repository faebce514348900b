# Takes what upstream's builder takes, and keeps it for a test to look at.
{
  baseName,
  compression,
  definitionsDirectory,
  fileSystems,
  finalPartitions,
  mkfsEnv,
  name,
  runCommand,
  sectorSize,
  seed,
  split,
  systemd,
  version,
}:

runCommand name (
  mkfsEnv
  // {
    inherit definitionsDirectory fileSystems;
    partitionsJSON = builtins.toJSON finalPartitions;
    sectorSize = toString sectorSize;
  }
) "mkdir $out"
