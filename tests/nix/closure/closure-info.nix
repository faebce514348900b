# What nixpkgs' closureInfo makes, of what Nix tells a builder of a closure (exportReferencesGraph).
python:
{ rootPaths }:

derivation {
  name = "closure-info";
  system = "x86_64-linux";
  builder = "/bin/sh";
  args = [
    "-ec"
    "${python} ${./closure_info.py}\n:"
  ];
  __structuredAttrs = true;
  exportReferencesGraph.closure = rootPaths;
}
