#!/bin/sh
# Makes disk.raw, an appliance without systemd: GRUB, a kernel, and an initrd that is the whole system. Needs root.
# $MIRROR is a mirror, or a line of sources.list.
set -eu
for tool in mmdebstrap mkfs.vfat sfdisk mcopy cpio zstd; do
  command -v $tool >/dev/null || { echo "build.sh: there is no $tool here" >&2; exit 77; }
done
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mmdebstrap --variant=extract --include=busybox-static,linux-image-cloud-amd64,grub-efi-amd64-bin \
  trixie "$work/debian" ${MIRROR:+"$MIRROR"} </dev/null

root=$work/root
mkdir -p "$root/bin" "$root/etc" "$root/root" "$root/proc" "$root/sys" "$root/dev"
cp "$work/debian/usr/bin/busybox" "$root/bin"
cat >"$root/init" <<'END'
#!/bin/busybox sh
/bin/busybox --install -s /bin
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
hostname -F /etc/hostname
exec /bin/init
END
chmod 755 "$root/init"
echo 'ttyS0::respawn:/bin/getty -L 115200 ttyS0 vt100' >"$root/etc/inittab"
echo 'root::0:0:root:/root:/bin/sh' >"$root/etc/passwd"
echo 'root:x:0:' >"$root/etc/group"
echo appliance >"$root/etc/hostname"
(cd "$root" && find . | LC_ALL=C sort | cpio -o -H newc --quiet) | zstd -q >"$work/initrd"

cat >"$work/grub.cfg" <<'END'
search --file --set=root /linux
set timeout=0
menuentry 'Appliance' {
  linux /linux console=ttyS0
  initrd /initrd
}
END
mkfs.vfat -F32 -s1 -n ESP -C "$work/esp" 65536 >/dev/null
mmd -i "$work/esp" ::/EFI ::/EFI/BOOT ::/EFI/debian
mcopy -i "$work/esp" "$work/debian/usr/lib/grub/x86_64-efi/monolithic/grubx64.efi" ::/EFI/BOOT/BOOTX64.EFI
mcopy -i "$work/esp" "$work/grub.cfg" ::/EFI/debian/grub.cfg
mcopy -i "$work/esp" "$work"/debian/boot/vmlinuz-* ::/linux
mcopy -i "$work/esp" "$work/initrd" ::/initrd
truncate -s 66M disk.raw
echo 'start=2048, size=131072, type=uefi, name=ESP' | sfdisk -q --label gpt disk.raw
dd if="$work/esp" of=disk.raw bs=1M seek=1 conv=notrunc,sparse status=none
