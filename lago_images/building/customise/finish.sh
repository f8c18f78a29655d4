#!/bin/sh
# Runs in the guest after the spec's commands: tells what is installed, removes what the commands
# left behind, and gives unused blocks back. What it is given stands above this line: ANSWER, the
# file for the answer; IDENTITIES and RENEWED, patterns of files that every machine makes for
# itself, the second by our unit; SPEC, the commands' arguments; USERS, whose passwords will be set;
# and place_units, which writes our units.

LIBRARY=/usr/local/lib/lago-images
KEPT=$LIBRARY/kept-identities
IN_INITRD=
umask 022

has() { command -v "$1" >/dev/null 2>&1; }

packages() {
  if has dpkg-query && [ -s /var/lib/dpkg/status ]; then
    # shellcheck disable=SC2016
    dpkg-query -W -f '${db:Status-Status} ${Package} ${Version} ${Architecture}\n' |
      sed -n 's/^installed //p'
  elif has rpm; then
    rpm -qa --qf '%{NAME} %|EPOCH?{%{EPOCH}:}:{}|%{VERSION}-%{RELEASE} %{ARCH} %{LICENSE}\n'
  elif [ -s /lib/apk/db/installed ]; then
    awk -F: '/^P:/ {p = $2} /^V:/ {v = $2} /^A:/ {a = $2} /^L:/ {l = $2}
      /^$/ && p {print p, v, a, l; p = ""; l = ""}
      END {if (p) print p, v, a, l}' /lib/apk/db/installed
  else
    return 1
  fi
}

# virt-sysprep sets the passwords of those in this file, and says nothing of others.
missing_users() {
  [ -n "$USERS" ] && [ -e /etc/shadow ] || return 0
  printf '%s\n' "$USERS" | while IFS= read -r user; do
    cut -d: -f1 /etc/shadow | grep -qxF -e "$user" || printf 'missing-user %s\n' "$user"
  done
}

secrets() {
  find /etc /root /home /opt /srv /usr/local /var/lib -xdev -type f -size -65k \
    -exec grep -lE -e '^-----BEGIN ([A-Z0-9]+ )*PRIVATE KEY( BLOCK)?-----' {} + 2>/dev/null
  for file in /etc/machine-id /var/lib/dbus/machine-id /etc/hostid; do
    if [ -s "$file" ] && [ ! -L "$file" ]; then echo "$file"; fi
  done
  for file in $IDENTITIES $RENEWED; do
    if [ -e "$file" ]; then echo "$file"; fi
  done
}

# The sizes and digests of what a machine starts with; and where it keeps more of it by its own
# table of file systems, which is not in reach here.
boot_files() {
  has sha256sum && [ -d /boot ] || return 0
  set -- /boot
  if [ -d /efi ]; then set -- /boot /efi; fi
  find "$@" -type f -exec stat -c 'boot-size %s %n' {} +
  find "$@" -type f -exec sha256sum {} + | sed 's/^/boot-sha256 /'
  if [ -r /etc/fstab ]; then
    while read -r device folder _; do
      case $device in '#'*) continue ;; esac
      case $folder in
        /boot | /boot/* | /efi)
          grep -qsF -e " $folder " /proc/mounts || echo "boot-unread $folder"
          ;;
      esac
    done </etc/fstab
  fi
  echo boot-end
}

clean_logs() {
  rm -rf /var/log/journal/*
  find /var/log -xdev -type f \( -name '*.gz' -o -name '*.[0-9]' -o -name '*.old' \) \
    -exec rm -f {} +
  find /var/log -xdev -type f -size +0 -exec sh -c 'for f; do : >"$f"; done' sh {} +
}

clean() {
  rm -rf /var/lib/apt/lists/* /var/cache/apt/archives/*.deb /var/cache/apt/*.bin
  rm -rf /var/cache/dnf/* /var/cache/libdnf5/* /var/cache/yum/* /var/cache/zypp/* /var/cache/apk/*
  # It has inodes and times, and ldconfig makes it anew.
  rm -f /var/cache/ldconfig/aux-cache
  rm -rf /var/crash/* /root/.bash_history
  rm -f /var/lib/systemd/random-seed /var/lib/random-seed /var/lib/urandom/random-seed
  clean_logs
  # The program that runs this keeps its log there, and removes it itself.
  find /tmp /var/tmp -xdev -mindepth 1 -maxdepth 1 ! -name builder.log -exec rm -rf {} +
  for file in /etc/machine-id /var/lib/dbus/machine-id; do
    if [ -f "$file" ] && [ ! -L "$file" ]; then : >"$file"; fi
  done
}

remove_identities() {
  rm -f /etc/ssh/ssh_host_*
  for file in $IDENTITIES; do remove_identity "$file"; done
  # Without systemd there is nobody to make these anew.
  [ -d /etc/systemd/system ] || return 0
  for file in $RENEWED; do remove_identity "$file"; done
  place_units
  # The hooks of dropbear-initramfs and open-iscsi have copied theirs into each initrd.
  if [ -n "$IN_INITRD" ] && has update-initramfs; then update-initramfs -u -k all; fi
}

# What a spec, this one or one below, names is meant to be there.
remove_identity() {
  [ -e "$1" ] || return 0
  if [ -e "$KEPT" ] && grep -qxF -e "$1" "$KEPT"; then return 0; fi
  case $SPEC in
    *"$1"*) mkdir -p "$LIBRARY" && echo "$1" >>"$KEPT" ;;
    *)
      case $1 in
        */dropbear/initramfs/* | */dropbear-initramfs/*) IN_INITRD=yes ;;
        /etc/iscsi/*) [ ! -e /usr/share/initramfs-tools/hooks/iscsi ] || IN_INITRD=yes ;;
      esac
      rm -f "$1"
      ;;
  esac
}

# virt-customize numbers first-boot scripts from 1 in each launch, and they run by name: those of
# earlier launches come first, and keep their order.
order_firstboot() {
  scripts=/usr/lib/virt-sysprep/scripts
  last=0
  for script in "$scripts"/0000.*; do
    [ -e "$script" ] || continue
    number=${script##*/0000.}
    last=$((1${number%%.*} - 10000))
  done
  for script in "$scripts"/*; do
    [ -e "$script" ] || continue
    case ${script##*/} in 0000.*) continue ;; esac
    last=$((last + 1))
    mv "$script" "$scripts/0000.$(printf %04d "$last").${script##*/}"
  done
}

trim() {
  has fstrim || return 0
  sync
  while read -r device mountpoint _; do
    case $device in
      /dev/*) fstrim -v "$mountpoint" ;;
    esac
  done </proc/mounts
}

finish() {
  packages="$(packages)" && { echo packages && printf '%s\n' "$packages" && echo end; }
  missing_users
  clean >/dev/null 2>&1
  remove_identities >/dev/null
  order_firstboot
  secrets | sort -u | sed 's/^/secret /'
  boot_files
  echo 'end of answer'
}
