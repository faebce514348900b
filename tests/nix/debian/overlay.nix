# Debian's programs under the names of nixpkgs' packages.
{
  debian,
  dress,
  kernelRelease,
  kernelTree,
  raw,
  subset,
  switch,
  unfetched,
}:
final: prev:
let
  inherit (prev) lib;
  kernelVersion = lib.head (lib.splitString "+" (lib.head (lib.splitString "-" kernelRelease)));
  p = name: version: bins: dirs: extra: dress name version (subset name bins dirs) ({ mainProgram = if bins == [ ] then name else builtins.head bins; } // extra);
  simple = name: bins: p name "1" bins [ ] { };
  systemdBins = [
    "systemctl" "journalctl" "udevadm" "systemd-escape" "loginctl" "networkctl" "timedatectl" "hostnamectl" "localectl" "busctl" "bootctl"
    "systemd-analyze" "systemd-cat" "systemd-cgls" "systemd-cgtop" "systemd-creds" "systemd-cryptenroll" "systemd-delta" "systemd-detect-virt"
    "systemd-hwdb" "systemd-id128" "systemd-inhibit" "systemd-machine-id-setup" "systemd-mount" "systemd-notify" "systemd-path" "systemd-repart"
    "systemd-run" "systemd-socket-activate" "systemd-stdio-bridge" "systemd-sysusers" "systemd-tmpfiles" "systemd-tty-ask-password-agent" "systemd-umount"
    "systemd-ask-password" "systemd-firstboot" "resolvectl" "halt" "poweroff" "reboot" "shutdown" "init" "run0" "userdbctl" "coredumpctl" "oomctl"
  ];
  utilLinuxBins = [
    "agetty" "blkid" "blockdev" "chcpu" "chmem" "choom" "chrt" "cfdisk" "ctrlaltdel" "dmesg" "fallocate" "fdisk" "findfs" "findmnt" "flock" "fsck" "fsfreeze"
    "fstrim" "getopt" "hexdump" "hwclock" "ionice" "ipcs" "kill" "last" "ldattach" "logger" "login" "losetup" "lsblk" "lscpu" "lsipc" "lslocks" "lsns" "mcookie" "mesg" "mkfs" "mkswap" "more"
    "mount" "mountpoint" "namei" "nologin" "nsenter" "partx" "pivot_root" "prlimit" "readprofile" "rename.ul" "renice" "rev" "rtcwake" "runuser" "script" "setarch" "setpriv" "setsid" "setterm" "sfdisk"
    "su" "sulogin" "swaplabel" "swapoff" "swapon" "switch_root" "taskset" "umount" "unshare" "uuidgen" "wall" "wdctl" "whereis" "wipefs" "zramctl"
  ];
  coreutilsBins = [
    "[" "arch" "b2sum" "base32" "base64" "basename" "basenc" "cat" "chcon" "chgrp" "chmod" "chown" "chroot" "cksum" "comm" "cp" "csplit" "cut" "date" "dd" "df" "dir" "dircolors" "dirname" "du" "echo" "env" "expand" "expr"
    "factor" "false" "fmt" "fold" "groups" "head" "hostid" "id" "install" "join" "link" "ln" "logname" "ls" "md5sum" "mkdir" "mkfifo" "mknod" "mktemp" "mv" "nice" "nl" "nohup" "nproc" "numfmt" "od" "paste" "pathchk"
    "pinky" "pr" "printenv" "printf" "ptx" "pwd" "readlink" "realpath" "rm" "rmdir" "runcon" "seq" "sha1sum" "sha224sum" "sha256sum" "sha384sum" "sha512sum" "shred" "shuf" "sleep" "sort" "split" "stat" "stdbuf" "stty" "sum"
    "sync" "tac" "tail" "tee" "test" "timeout" "touch" "tr" "true" "truncate" "tsort" "tty" "uname" "unexpand" "uniq" "unlink" "users" "vdir" "wc" "who" "whoami" "yes"
  ];
  kmodBins = [ "kmod" "modprobe" "insmod" "rmmod" "lsmod" "modinfo" "depmod" ];
  kernelConfig = {
    isSet = _: true;
    isYes = _: true;
    isNo = _: false;
    isModule = _: true;
    isEnabled = _: true;
    isDisabled = _: false;
    getValue = _: "y";
  };
  kernel = dress "linux" kernelVersion kernelTree {
    modDirVersion = kernelRelease;
    config = kernelConfig;
    configfile = "${kernelTree}/config";
    features = { ia32Emulation = true; netfilterRPFilter = true; efiBootStub = true; };
    modules = kernelTree;
    kernelOlder = lib.versionOlder kernelVersion;
    kernelAtLeast = lib.versionAtLeast kernelVersion;
    isHardened = false; isLibre = false; isZen = false;
    kernelPatches = [ ];
    target = "bzImage";
    buildDTBs = false;
  };
  python = dress "python3" "3.13" (raw "python3" "mkdir -p $out/bin; ln -s ${debian}/bin/python3 $out/bin/python3; ln -s python3 $out/bin/python") { mainProgram = "python3"; interpreter = "${debian}/bin/python3"; withPackages = _: python; pkgs = { }; pythonVersion = "3.13"; isPy3 = true; isPy3k = true; sitePackages = "lib/python3.13/site-packages"; executable = "python3.13"; };
  perl = p "perl" "5.40.1" [ "perl" ] [ ] { withPackages = _: perl; libPrefix = "lib/perl5"; };
  # The boot loader's builder asks bootctl by Varlink to update the boot loader, which 257 does not hear: this answers
  # what newer ones do where the ESP has the boot loader of this system already (ESTALE, 116), and else refuses.
  bootctl = raw "bootctl" ''
    mkdir -p $out/bin
    cat > $out/bin/bootctl <<'X'
    #!${debian}/bin/bash
    if [ "''${SYSTEMD_VARLINK_LISTEN:-}" != - ]; then exec ${debian}/bin/bootctl "$@"; fi
    ${debian}/bin/cat > /dev/null
    errno=38
    ! ${debian}/bin/cmp --silent "$SYSTEMD_ESP_PATH/EFI/BOOT/BOOTX64.EFI" ${debian}/lib/systemd/boot/efi/systemd-bootx64.efi || errno=116
    printf '{"error":"io.systemd.System","parameters":{"errno":%s}}\0' "$errno"
    X
    chmod +x $out/bin/bootctl
  '';
  systemd = dress "systemd" "257.13" (raw "systemd" ''
    cp -a ${subset "systemd" systemdBins [ "lib" "lib64" "example" "share" "libexec" ]} $out
    chmod -R u+w $out
    ln -sfn ${bootctl}/bin/bootctl $out/bin/bootctl
  '') {
    interfaceVersion = 2;
    util-linux = final.util-linux;
    kmod = final.kmod;
    kbd = final.kbd;
    withEfi = true; withBootloader = true; withCryptsetup = true; withImportd = false; withMachined = false; withNspawn = false; withTimedated = true;
    withLocaled = true; withHostnamed = true; withPortabled = false; withRepart = true; withUtmp = true; withTpm2Units = false; withTpm2Tss = false; withLogind = true; withNetworkd = true;
    withResolved = true; withTimesyncd = true; withOomd = false; withHomed = false; withSysupdate = false; withUkify = false; withFido2 = false; withApparmor = false; withPolkit = false;
    withCoredump = false; withCompression = true; withKmod = true; withPam = true; withAudit = true; withHwdb = true; withUserDb = true; withAnalyze = true; withRemote = false; withSelinux = false; withAcl = true; withDocumentation = false; withLibBPF = false; withSysusers = true; withFirstboot = true; withVmspawn = false; withVConsole = true; withNss = true; withEfiStub=true; withPasswordQuality=false; withLibarchive=false; withLibseccomp=true; withIptables=false; withGcrypt=true; withQrencode=false;
  };
  bash = p "bash" "5.2" [ "bash" "sh" ] [ ] { shellPath = "/bin/bash"; };
  stub = name: text: dress name "1" (raw name "mkdir -p $out/bin; ${text}") { };
in
{
  inherit systemd bash kernel perl;
  fetchurl = unfetched; fetchFromGitHub = unfetched; fetchgit = unfetched; fetchzip = unfetched; fetchFromGitLab = unfetched; fetchpatch = unfetched; fetchpatch2 = unfetched; fetchFromSourcehut = unfetched; fetchFromGitea = unfetched; fetchFromCodeberg = unfetched; fetchsvn = unfetched; fetchFromBitbucket = unfetched; fetchFromSavannah = unfetched; fetchCrate = unfetched;
  black = stub "black" "printf '#!/bin/sh\\nexit 0\\n' > $out/bin/black; chmod +x $out/bin/black"; ruff = stub "ruff" "printf '#!/bin/sh\\nexit 0\\n' > $out/bin/ruff; chmod +x $out/bin/ruff";
  xauth = simple "xauth" [ ]; openresolv = simple "openresolv" [ ];
  mypy = stub "mypy" "printf '#!/bin/sh\\nexit 0\\n' > $out/bin/mypy; chmod +x $out/bin/mypy";
  bind = simple "bind" [ ]; host = simple "host" [ ]; dnsutils = simple "dnsutils" [ ]; cmake = simple "cmake" [ ]; ninja = simple "ninja" [ ]; meson = simple "meson" [ ]; pkg-config = simple "pkg-config" [ ]; autoreconfHook = simple "autoreconf-hook" [ ]; installShellFiles = simple "install-shell-files" [ ];
  nix-bash-completions = simple "nix-bash-completions" [ ]; bash-completion = p "bash-completion" "2" [ ] [ "share/bash-completion" ] { }; nixos-rebuild-ng = simple "nixos-rebuild" [ ];
  systemdMinimal = systemd; systemdLibs = systemd; systemdUkify = systemd; udev = systemd; udevCheckHook = simple "udev-check-hook" [ ]; eudev = systemd;
  bashInteractive = bash; bashNonInteractive = bash; bashInteractiveFHS = bash; runtimeShellPackage = bash; runtimeShell = "${debian}/bin/bash";
  python3 = python; python3Minimal = python; python313 = python; python3Packages = { flake8 = simple "flake8" [ ]; mypy = stub "mypy" "printf '#!/bin/sh\\nexit 0\\n' > $out/bin/mypy; chmod +x $out/bin/mypy";}; perlPackages = { }; perl5 = perl;
  glibc = dress "glibc" "2.41" debian { static = debian; getent = debian; };
  libc = debian;
  glibcLocales = simple "glibc-locales" [ ]; glibcLocalesUtf8 = simple "glibc-locales" [ ];
  coreutils = p "coreutils" "9.7" coreutilsBins [ ] { };
  coreutils-full = final.coreutils;
  util-linux = dress "util-linux" "2.41" (raw "util-linux" ''
    mkdir -p $out/lib/systemd/system $out/share; ln -s ${subset "util-linux-bin" utilLinuxBins [ ]}/bin $out/bin; ln -s bin $out/sbin
    cp ${debian}/example/systemd/system/fstrim.{service,timer} $out/lib/systemd/system/
  '') { lastlog = dress "util-linux-lastlog" "1" (raw "util-linux-lastlog" "mkdir -p $out/lib/tmpfiles.d; ln -s ${debian}/lib/security $out/lib/security") { }; withLastlog = false; };
  util-linuxMinimal = final.util-linux;
  kmod = p "kmod" "34" kmodBins [ ] { };
  e2fsprogs = p "e2fsprogs" "1.47.2" [ "e2fsck" "fsck.ext2" "fsck.ext3" "fsck.ext4" "mkfs.ext2" "mkfs.ext3" "mkfs.ext4" "mke2fs" "resize2fs" "tune2fs" "dumpe2fs" "debugfs" "e2label" "chattr" "lsattr" "badblocks" ] [ ] { };
  dosfstools = p "dosfstools" "4.2" [ "fsck.fat" "fsck.vfat" "mkfs.fat" "mkfs.vfat" "fatlabel" "dosfslabel" "dosfsck" "mkdosfs" ] [ ] { };
  erofs-utils = p "erofs-utils" "1.8.6" [ "mkfs.erofs" "fsck.erofs" "dump.erofs" ] [ ] { };
  mtools = simple "mtools" [ "mcopy" "mmd" "mdir" "mtools" "mformat" ];
  shadow = p "shadow" "4.17" [ "useradd" "usermod" "userdel" "groupadd" "groupmod" "groupdel" "passwd" "chpasswd" "chage" "newgrp" "login" "su" "nologin" "newuidmap" "newgidmap" "sg" "gpasswd" "vipw" "pwck" "grpck" "expiry" "faillog" "lastlog" ] [ ] { shellPath = "/bin/nologin"; };
  openssh = dress "openssh" "10.0" (raw "openssh" ''
    mkdir -p $out/bin $out/libexec; for b in ssh sshd ssh-keygen ssh-add ssh-agent scp sftp ssh-keyscan; do ln -s ${debian}/bin/$b $out/bin/$b; done
    ln -s ${debian}/lib/openssh/sftp-server $out/libexec/sftp-server
  '') { };
  openssh_hpn = final.openssh;
  nix = dress "nix" "2.26.3" (raw "nix" ''
    mkdir -p $out/bin $out/lib/systemd/system $out/lib/tmpfiles.d
    for b in nix nix-store nix-env nix-build nix-instantiate nix-channel nix-collect-garbage nix-copy-closure nix-daemon nix-hash nix-prefetch-url nix-shell; do ln -s ${debian}/bin/$b $out/bin/$b; done
    cp ${debian}/example/systemd/system/nix-daemon.{service,socket} $out/lib/systemd/system/
    echo 'd /nix/var/nix/daemon-socket 0755 root root - -' > $out/lib/tmpfiles.d/nix-daemon.conf
  '') { };
  dbus = dress "dbus" "1.16" (raw "dbus" ''
    mkdir -p $out/bin $out/lib/systemd/system $out/lib/systemd/user $out/share $out/etc
    for b in dbus-daemon dbus-send dbus-monitor dbus-uuidgen dbus-cleanup-sockets dbus-run-session dbus-launch dbus-update-activation-environment; do [ -e ${debian}/bin/$b ] && ln -s ${debian}/bin/$b $out/bin/; done
    for u in dbus.service dbus.socket; do cp ${debian}/example/systemd/system/$u $out/lib/systemd/system/; [ -e ${debian}/example/systemd/user/$u ] && cp ${debian}/example/systemd/user/$u $out/lib/systemd/user/; done
    ln -s ${debian}/share/dbus-1 $out/share/dbus-1; mkdir -p $out/libexec; ln -s ${debian}/lib/dbus-1.0/dbus-daemon-launch-helper $out/libexec/
    :
  '') { };
  findXMLCatalogs = simple "find-xml-catalogs" [ ];
  google-guest-agent = dress "google-guest-agent" "20211116.00" (raw "google-guest-agent" ''
    mkdir -p $out/bin $out/lib/systemd/system
    for b in google_guest_agent google_metadata_script_runner google_authorized_keys; do [ -e ${debian}/bin/$b ] && ln -s ${debian}/bin/$b $out/bin/; done
    for u in google-guest-agent google-startup-scripts google-shutdown-scripts; do cp ${debian}/example/systemd/system/$u.service $out/lib/systemd/system/; done
  '') { };
  google-guest-configs = dress "google-guest-configs" "1" (raw "google-guest-configs" ''
    mkdir -p $out/bin $out/lib/udev/rules.d $out/etc/modprobe.d $out/etc/sysctl.d
    echo "blacklist floppy" > $out/etc/modprobe.d/gce-blacklist.conf
    echo "net.ipv4.tcp_syncookies=1" > $out/etc/sysctl.d/60-gce-network-security.conf
    printf '#!/bin/sh\nexit 0\n' > $out/bin/google-dhclient-script; chmod +x $out/bin/*
  '') { };
  google-guest-oslogin = dress "google-guest-oslogin" "1" (raw "oslogin" "mkdir -p $out/bin $out/lib") { };
  switch-to-configuration-ng = dress "switch-to-configuration-ng" "1" (raw "switch-to-configuration-ng" "install -D ${switch} $out/bin/switch-to-configuration") { mainProgram = "switch-to-configuration"; };
  nixos-init = dress "nixos-init" "1" (raw "nixos-init" ''
    mkdir -p $out/bin
    cat > $out/bin/resolve-in-root <<'X'
    #!/bin/sh
    # resolve-in-root ROOT PATH: links are followed inside ROOT
    p=$2; n=0
    while [ -L "$1$p" ] && [ $n -lt 40 ]; do t=$(readlink "$1$p"); case $t in /*) p=$t;; *) p=$(dirname "$p")/$t;; esac; n=$((n+1)); done
    [ -e "$1$p" ] || { echo "Failed to resolve path $2 in prefix $1" >&2; exit 1; }
    echo "$p"
    X
    cat > $out/bin/find-etc <<'X'
    #!/bin/sh
    exit 1
    X
    cat > $out/bin/env-generator <<'X'
    #!/bin/sh
    # {"PATH": "..."} -> PATH=...
    /usr/bin/sed -n 's/.*"PATH": *"\([^"]*\)".*/PATH=\1/p' /etc/systemd/generator-environment.json
    X
    sed -i 's/^    //' $out/bin/*; chmod +x $out/bin/*
  '') { };
  nixos-init-with-shell = final.nixos-init;
  linuxPackages = lib.makeExtensible (self: {
    inherit kernel;
    inherit (kernel) kernelAtLeast kernelOlder isHardened isLibre isZen;
    stdenv = final.stdenv;
    callPackage = final.newScope self;
  });
  linuxPackages_latest = final.linuxPackages; linux = kernel;
  makeModulesClosure = args: prev.makeModulesClosure (args // { allowMissing = true; });
  aggregateModules = modules: dress "modules" "1" (raw "aggregated-modules" ''
    mkdir -p $out/lib/modules; cp -a ${kernelTree}/lib/modules/. $out/lib/modules/; chmod -R u+w $out
    for d in $out/lib/modules/*; do depmod -b $out $(basename $d); done
  '') { };
  kmod-blacklist-ubuntu = dress "kmod-blacklist-ubuntu" "1" (raw "kmod-blacklist-ubuntu" "mkdir $out; : > $out/modprobe.conf") { };
  kmod-debian-aliases = dress "kmod-debian-aliases" "1" (raw "kmod-debian-aliases.conf" ": > $out") { };
  makeInitrdNGTool = dress "make-initrd-ng" "1" (raw "make-initrd-ng" ''
    mkdir -p $out/bin; { echo "#!${debian}/bin/python3"; cat ${./make_initrd_ng.py}; } > $out/bin/make-initrd-ng; chmod +x $out/bin/make-initrd-ng
    sed -i 's,@debian@,${debian},' $out/bin/make-initrd-ng
  '') { };
  lndir = dress "lndir" "1" (raw "lndir" "install -D -m755 ${./lndir} $out/bin/lndir") { };
  cacert = p "cacert" "1" [ ] [ "etc/ssl" ] { hashed = final.cacert; p11kit = final.cacert; unbundled = final.cacert; };
  iana-etc = p "iana-etc" "1" [ ] [ "etc/protocols" "etc/services" ] { };
  tzdata = p "tzdata" "1" [ ] [ "share/zoneinfo" ] { };
  linux-pam = p "linux-pam" "1.7" [ ] [ "lib/security" ] { };
  cloud-utils = dress "cloud-utils" "0.33" (raw "cloud-utils" "mkdir -p $out/bin; printf '#!/usr/bin/bash\nPATH=/usr/bin exec /usr/bin/growpart \"$@\"\n' > $out/bin/growpart; chmod +x $out/bin/growpart") { };
  shellcheck-minimal = dress "shellcheck" "1" debian { compiler = { bootstrapAvailable = false; meta.platforms = [ ]; }; };
  shellcheck = final.shellcheck-minimal;
  zstd = simple "zstd" [ "zstd" "unzstd" "zstdcat" "pzstd" ]; pzstd = final.zstd;
  xz = simple "xz" [ "xz" "unxz" "xzcat" "lzma" ];
  kbd = p "kbd" "1" [ "loadkeys" "setfont" "openvt" "chvt" "kbd_mode" ] [ ] { };
  iproute2 = simple "iproute2" [ "ip" "ss" "tc" "bridge" ];
  iputils = simple "iputils" [ "ping" ];
  procps = simple "procps" [ "ps" "top" "free" "pgrep" "pkill" "sysctl" "uptime" "vmstat" "w" "watch" "pidof" ];
  findutils = simple "findutils" [ "find" "xargs" ];
  gnugrep = simple "gnugrep" [ "grep" "egrep" "fgrep" ];
  gnused = simple "gnused" [ "sed" ]; gawk = simple "gawk" [ "gawk" "awk" ];
  gnutar = simple "gnutar" [ "tar" ]; gzip = simple "gzip" [ "gzip" "gunzip" "zcat" ]; bzip2 = simple "bzip2" [ "bzip2" "bunzip2" ];
  diffutils = simple "diffutils" [ "diff" "cmp" ]; gnupatch = simple "gnupatch" [ "patch" ]; gnumake = simple "gnumake" [ "make" ];
  ncurses = p "ncurses" "6.5" [ "tput" "clear" "reset" "tset" "infocmp" "tic" ] [ "share/terminfo" ] { };
  sqlite = p "sqlite" "3.46" [ "sqlite3" ] [ ] { };
  getent = simple "getent" [ "getent" ]; unixtools = prev.unixtools // { getent = final.getent; };
  hostname-debian = simple "hostname" [ "hostname" ]; inetutils = simple "inetutils" [ "hostname" "ping" ]; nettools = simple "net-tools" [ "hostname" ];
  libressl = simple "libressl" [ "openssl" ]; openssl = simple "openssl" [ "openssl" ];
  libcap = p "libcap" "2" [ "setcap" "getcap" "capsh" ] [ "lib/security" ] { };
  audit = simple "audit" [ ];
  lvm2 = simple "lvm2" [ ]; cryptsetup = simple "cryptsetup" [ ]; gnupg = simple "gnupg" [ ]; gnupgMinimal = simple "gnupg" [ ]; kexec-tools = simple "kexec" [ ];
  dhcpcd = p "dhcpcd" "10.1" [ "dhcpcd" ] [ "lib/dhcpcd" "share/dhcpcd" "libexec" ] { };
  nano = simple "nano" [ "nano" ]; less = simple "less" [ "less" ]; jq = simple "jq" [ "jq" ]; curl = simple "curl" [ "curl" ]; rsync = simple "rsync" [ "rsync" ]; sudo = p "sudo" "1.9" [ "sudo" "visudo" ] [ ] { };
  acl = simple "acl" [ "getfacl" "setfacl" ]; attr = simple "attr" [ "getfattr" "setfattr" ]; which = simple "which" [ "which" ]; time = simple "time" [ "time" ]; strace = simple "strace" [ "strace" ];
  cpio = simple "cpio" [ "cpio" ]; fakeroot = dress "fakeroot" "1" (raw "fakeroot" "mkdir -p $out/bin; ln -s ${debian}/bin/fakeroot-sysv $out/bin/fakeroot") { }; file = simple "file" [ "file" ]; patchelf = simple "patchelf" [ "patchelf" ]; gettext = simple "gettext" [ "envsubst" "gettext" ];
  libxslt = simple "libxslt" [ "xsltproc" ]; libxml2 = simple "libxml2" [ "xmllint" ]; efibootmgr = simple "efibootmgr" [ "efibootmgr" ]; bubblewrap = simple "bubblewrap" [ "bwrap" ];
  fish = p "fish" "1" [ ] [ ] { shellPath = "/bin/fish"; }; zsh = p "zsh" "1" [ ] [ ] { shellPath = "/bin/zsh"; }; dash = p "dash" "1" [ "dash" ] [ ] { shellPath = "/bin/dash"; };
  netcat = simple "netcat" [ ]; mkpasswd = simple "mkpasswd" [ ]; su = simple "su" [ "su" ]; getconf = simple "getconf" [ "getconf" ]; libressl_nc = simple "nc" [ ];
  xonsh = p "xonsh" "1" [ ] [ ] { shellPath = "/bin/xonsh"; };
  iptables = simple "iptables" [ "iptables" ]; nftables = simple "nftables" [ "nft" ]; lsof = simple "lsof" [ "lsof" ]; mdadm = simple "mdadm" [ ]; binutils = simple "binutils" [ "strip" "readelf" "objcopy" "objdump" "ld" "ar" "nm" ];
}
