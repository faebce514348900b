#!/bin/sh
# Makes disk.raw, a plain Debian with GRUB for UEFI and BIOS. Needs root. $MIRROR is a mirror, or a line of sources.list.
set -eu
for tool in mmdebstrap mkfs.ext4 mkfs.vfat sfdisk mcopy; do
  command -v $tool >/dev/null || { echo "build.sh: there is no $tool here" >&2; exit 77; }
done
uuid=8c5f2a10-6f52-4f6e-9a0b-2d4c7e1f0a31
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

mmdebstrap --variant=minbase --skip=cleanup/tmp \
  --include=systemd-sysv,systemd-resolved,udev,dbus,kmod,login,passwd,iproute2,openssh-server \
  --include=linux-image-cloud-amd64,initramfs-tools,grub-efi-amd64-bin,grub-pc-bin \
  --customize-hook="echo UUID=$uuid / ext4 errors=remount-ro 0 1 >\"\$1/etc/fstab\"" \
  --customize-hook='echo debian >"$1/etc/hostname"' \
  --customize-hook='printf "[Match]\nName=en*\n[Network]\nDHCP=yes\n" >"$1/etc/systemd/network/80-dhcp.network"' \
  --customize-hook='chroot "$1" systemctl enable systemd-networkd' \
  trixie "$work/root" ${MIRROR:+"$MIRROR"} </dev/null

kernel=$(cd "$work/root/boot" && echo vmlinuz-*)
mkdir -p "$work/root/boot/grub"
cat >"$work/root/boot/grub/grub.cfg" <<END
serial --speed=115200
terminal_input serial
terminal_output serial
set timeout=1
menuentry 'Debian' {
  search --no-floppy --fs-uuid --set=root $uuid
  linux /boot/$kernel root=UUID=$uuid ro quiet console=tty0 console=ttyS0,115200
  initrd /boot/initrd.img-${kernel#vmlinuz-}
}
END
printf 'search.fs_uuid %s root\nset prefix=($root)/boot/grub\nconfigfile $prefix/grub.cfg\n' $uuid >"$work/grub.cfg"

# What a BIOS starts: boot.img in the first sector, and the rest of GRUB in a partition of its own.
grub=$work/root/usr/lib/grub
cp -r "$grub/i386-pc" "$work/root/boot/grub/i386-pc"
chroot "$work/root" grub-mkimage -O i386-pc -p "(,gpt3)/boot/grub" -o /core.img \
  biosdisk part_gpt ext2 search search_fs_uuid normal configfile linux serial
mv "$work/root/core.img" "$work/core.img"

truncate -s 1600M disk.raw
sfdisk -q disk.raw <<END
label: gpt
start=2048, size=2048, type=21686148-6449-6E6F-744E-656564454649, name=bios
size=131072, type=uefi, name=ESP
type=4F68BCE3-E8CD-4DB1-96E7-FBCAF984B709, name=root
END
mkfs.vfat -F32 -s1 -n ESP -C "$work/esp" 65536 >/dev/null
mmd -i "$work/esp" ::/EFI ::/EFI/BOOT ::/EFI/debian
mcopy -i "$work/esp" "$grub/x86_64-efi/monolithic/grubx64.efi" ::/EFI/BOOT/BOOTX64.EFI
mcopy -i "$work/esp" "$work/grub.cfg" ::/EFI/debian/grub.cfg
# The last MiB of the disk has the copy of the partition table.
truncate -s 1533M "$work/ext4"
mkfs.ext4 -q -U $uuid -L root -d "$work/root" "$work/ext4"
dd if="$work/esp" of=disk.raw bs=1M seek=2 conv=notrunc,sparse status=none
dd if="$work/ext4" of=disk.raw bs=1M seek=66 conv=notrunc,sparse status=none

# As grub-bios-setup does: where the core is, in boot.img (at 92) and in the core's own first sector (at 500).
dd if="$grub/i386-pc/boot.img" of=disk.raw bs=1 count=440 conv=notrunc status=none
dd if="$work/core.img" of=disk.raw bs=1M seek=1 conv=notrunc status=none
le64() {
  n=$1
  for _ in 1 2 3 4 5 6 7 8; do
    printf "\\$(printf %03o $((n % 256)))"
    n=$((n / 256))
  done
}
le64 2048 | dd of=disk.raw bs=1 seek=92 conv=notrunc status=none
le64 2049 | dd of=disk.raw bs=1 seek=$((1048576 + 500)) conv=notrunc status=none
