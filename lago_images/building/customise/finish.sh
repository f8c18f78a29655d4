#!/bin/sh
# Runs in the guest after the spec's commands: tells what is installed, removes what the commands
# left behind, and gives unused blocks back. MARK stands at the start of the disk for the answer,
# SSH_KEYS_UNIT is ssh-host-keys.service.

has() { command -v "$1" >/dev/null 2>&1; }

packages() {
  if has dpkg-query && [ -s /var/lib/dpkg/status ]; then
    # shellcheck disable=SC2016
    dpkg-query -W -f '${db:Status-Status} ${Package} ${Version} ${Architecture}\n' |
      sed -n 's/^installed //p'
  elif has rpm; then
    rpm -qa --qf '%{NAME} %|EPOCH?{%{EPOCH}:}:{}|%{VERSION}-%{RELEASE} %{ARCH}\n'
  elif [ -s /lib/apk/db/installed ]; then
    awk -F: '/^P:/ {p = $2} /^V:/ {v = $2} /^A:/ {a = $2} /^$/ && p {print p, v, a; p = ""}
      END {if (p) print p, v, a}' /lib/apk/db/installed
  else
    return 1
  fi
}

answer() {
  for disk in /dev/sd? /dev/vd?; do
    [ -b "$disk" ] || continue
    if [ "$(head -c "${#MARK}" "$disk" 2>/dev/null | tr -d '\000')" = "$MARK" ]; then
      echo "$disk"
      return
    fi
  done
}

clean() {
  rm -rf /var/lib/apt/lists/* /var/cache/apt/archives/*.deb /var/cache/apt/*.bin
  rm -rf /var/cache/dnf/* /var/cache/libdnf5/* /var/cache/yum/* /var/cache/zypp/* /var/cache/apk/*
  rm -rf /var/log/journal/* /var/crash/* /root/.bash_history
  rm -f /var/lib/systemd/random-seed /var/lib/random-seed /var/lib/urandom/random-seed
  find /var/log -xdev -type f \( -name '*.gz' -o -name '*.[0-9]' -o -name '*.old' \) \
    -exec rm -f {} +
  find /var/log -xdev -type f -size +0 -exec sh -c 'for f; do : >"$f"; done' sh {} +
  # The program that runs this keeps its log there, and removes it itself.
  find /tmp /var/tmp -xdev -mindepth 1 -maxdepth 1 ! -name builder.log -exec rm -rf {} +
  for file in /etc/machine-id /var/lib/dbus/machine-id; do
    if [ -f "$file" ] && [ ! -L "$file" ]; then : >"$file"; fi
  done
}

ssh_keys() {
  rm -f /etc/ssh/ssh_host_*
  [ -x /usr/bin/ssh-keygen ] && [ -d /etc/systemd/system ] || return 0
  # The distribution's own unit, cloud-init, or the one that an earlier build put here.
  for unit in /usr/lib/systemd/system/*sshd*keygen* /lib/systemd/system/*sshd*keygen* \
    /usr/lib/systemd/system/cloud-init.service /lib/systemd/system/cloud-init.service \
    /etc/systemd/system/ssh-host-keys.service; do
    [ ! -e "$unit" ] || return 0
  done
  printf %s "$SSH_KEYS_UNIT" >/etc/systemd/system/ssh-host-keys.service
  mkdir -p /etc/systemd/system/multi-user.target.wants
  ln -sf ../ssh-host-keys.service /etc/systemd/system/multi-user.target.wants/
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

disk=$(answer)
if [ -n "$disk" ]; then
  { echo "packages" && packages && echo "end"; } >"$disk"
fi
clean 2>/dev/null
ssh_keys
trim
exit 0
