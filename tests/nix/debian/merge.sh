# From an unpacked Debian tree ($tree) to one prefix that is nixpkgs' `${pkg}` for every package: $out; and its kernel
# to $kernel. Run by Nix as a builder.
mkdir -p "$kernel"
cp -a "$tree/usr" "$out"
cd "$out"
chmod -R u+rwX .
find . -perm /6000 -exec chmod ug-s {} +
rm -rf share/{doc,doc-base,man,info,lintian,locale,bug,zsh,fish,mime,icons,applications,pixmaps,gcc,gdb} include games src local
rm -rf share/initramfs-tools lib/python3*/test share/python-wheels

# sbin and bin are one, as in nixpkgs, and no link leaves the tree.
for file in sbin/*; do
  if ! [ -e "bin/${file#sbin/}" ] && ! [ -L "bin/${file#sbin/}" ]; then mv "$file" bin/; fi
done
rm -rf sbin
ln -s bin sbin
find bin -type l | while read -r link; do
  target=$(readlink "$link")
  case $target in
    /usr/sbin/* | /sbin/*) ln -sfn "$(basename "$target")" "$link" ;;
    ../sbin/*) ln -sfn "${target#../sbin/}" "$link" ;;
  esac
done
# What Debian's alternatives would choose.
ln -sfn bash bin/sh
ln -sfn gawk bin/awk
ln -sfn which.debianutils bin/which
ln -sfn nano bin/editor
ln -sfn less bin/pager
[ ! -e bin/iptables-nft ] || ln -sfn iptables-nft bin/iptables

# Units and configuration are taken from example/, as nixpkgs' systemd has it: nothing is enabled by being there.
mkdir -p example/systemd/network
mv lib/systemd/system example/systemd/system
mv lib/systemd/user example/systemd/user
for directory in sysctl.d tmpfiles.d sysusers.d modules-load.d; do
  [ ! -d "lib/$directory" ] || mv "lib/$directory" "example/$directory"
done
mv lib/systemd/network/* example/systemd/network/
mv example/systemd/network/99-default.link lib/systemd/network/
rm -rf lib/systemd/system-preset lib/systemd/user-preset lib/environment.d
rm -f lib/systemd/system-generators/systemd-{sysv,rc-local}-generator
find example -xtype l ! -lname /dev/null -delete
# A directory that nixpkgs' list of wants names.
mkdir -p example/systemd/system/factory-reset.target.wants
ln -s ../none.target example/systemd/system/factory-reset.target.wants/
printf '%s\n' 'kernel.sysrq = 16' 'fs.protected_hardlinks = 1' 'fs.protected_symlinks = 1' > example/sysctl.d/50-default.conf
[ -d share/terminfo ] || cp -a lib/terminfo share/

# The kernel is a package of its own; the tools look where NixOS' kmod looks.
mv lib/modules "$kernel/modules"
cp "$tree"/boot/* "$kernel/"
ln -s /run/booted-system/kernel-modules/lib/modules lib/modules

multiarch=x86_64-linux-gnu
ln -sfn $multiarch/security lib/security
for library in "lib/$multiarch"/libnss_{files,systemd,myhostname,resolve}.so.2; do
  [ ! -e "$library" ] || ln -s "${library#lib/}" lib/
done
mkdir -p etc/ssl/certs
find share/ca-certificates -name '*.crt' | sort | xargs cat > etc/ssl/certs/ca-bundle.crt
for name in protocols services rpc ethertypes; do
  [ ! -e "$tree/etc/$name" ] || cp "$tree/etc/$name" etc/
done
# Without a sandbox Python would write its caches into the store while it builds: they are there already, never stale.
python3 -m compileall -q --invalidation-mode unchecked-hash -s "$out" -p "$out" lib/python3.13 lib/python3 > /dev/null || true
:
