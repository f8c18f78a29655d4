#!/bin/sh
# Makes the identities and keys that this machine lacks, with the distribution's own programs: the
# image has none, as every machine made of it would have the same.

# Some of these ask, and there is nobody.
export DEBIAN_FRONTEND=noninteractive

has() { command -v "$1" >/dev/null 2>&1; }

iscsi() {
  file=/etc/iscsi/initiatorname.iscsi
  has iscsi-iname && [ -d /etc/iscsi ] && [ ! -s "$file" ] || return 0
  if [ -e /etc/debian_version ]; then
    name=$(iscsi-iname -p iqn.1993-08.org.debian:01)
  else
    name=$(iscsi-iname)
  fi
  (umask 077 && echo "InitiatorName=$name" >"$file")
}

nvme_host() {
  has nvme && [ -d /etc/nvme ] || return 0
  [ -s /etc/nvme/hostnqn ] || nvme gen-hostnqn >/etc/nvme/hostnqn
  # The two must belong together: newer kernels refuse one id with another's name.
  [ -s /etc/nvme/hostid ] || sed -n 's/.*uuid://p' /etc/nvme/hostnqn >/etc/nvme/hostid
}

dropbear_keys() {
  has dropbearkey && [ -d /etc/dropbear ] && has dropbear || return 0
  for type in rsa ecdsa ed25519; do
    file=/etc/dropbear/dropbear_${type}_host_key
    [ -s "$file" ] || dropbearkey -t "$type" -f "$file"
  done
}

# What unlocks disks over ssh, from within the initrd.
dropbear_initramfs_keys() {
  [ -e /usr/share/initramfs-tools/hooks/dropbear ] && has dropbearkey || return 0
  is_new=
  for folder in /etc/dropbear/initramfs /etc/dropbear-initramfs; do
    [ -d "$folder" ] || continue
    for type in rsa ecdsa ed25519; do
      file=$folder/dropbear_${type}_host_key
      [ -s "$file" ] && continue
      dropbearkey -t "$type" -f "$file"
      is_new=yes
    done
  done
  if [ -n "$is_new" ]; then update-initramfs -u -k all; fi
}

snakeoil() {
  has make-ssl-cert && [ ! -s /etc/ssl/private/ssl-cert-snakeoil.key ] || return 0
  make-ssl-cert generate-default-snakeoil --force-overwrite
}

bind_key() {
  file=/etc/bind/rndc.key
  has rndc-confgen && [ -d /etc/bind ] && [ ! -s "$file" ] || return 0
  rndc-confgen -a -c "$file"
  if getent passwd bind >/dev/null; then chown bind:bind "$file" && chmod 640 "$file"; fi
}

munge_key() {
  file=/etc/munge/munge.key
  has mungekey && [ -d /etc/munge ] && [ ! -s "$file" ] || return 0
  mungekey --create --keyfile "$file"
  if getent passwd munge >/dev/null; then chown munge:munge "$file" && chmod 400 "$file"; fi
}

iscsi
nvme_host
dropbear_keys
dropbear_initramfs_keys
snakeoil
bind_key
munge_key
