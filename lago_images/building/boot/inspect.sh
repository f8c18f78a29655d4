# Runs in a guest that has started, behind finish.sh, whose KEPT, IDENTITIES and RENEWED it uses.
# Prints a fact a line: its name, a blank, and the value. PASSWORDS has lines of
# USER:PASSWORD, KEYS of USER and the keys in base64; LEASED is the pattern of what DHCP gives.
PATH=$PATH:/usr/sbin:/sbin:/usr/bin:/bin

failed_units() {
  systemctl list-units --failed --no-legend --plain --full 2>/dev/null | sed 's/^● *//' |
    while read -r unit _; do
      echo "unit $unit"
      echo "result $(systemctl show --property=Result --value "$unit" 2>/dev/null)"
      journalctl --boot --unit="$unit" --lines=8 --no-pager --output=cat 2>/dev/null |
        sed 's/^/journal /'
    done
  systemctl list-jobs --no-legend --plain --full 2>/dev/null |
    while read -r _ unit _ state; do
      if [ "$state" = running ]; then echo "job $unit"; fi
    done
}

is_enabled() { [ "$(systemctl is-enabled "$1" 2>/dev/null)" = enabled ]; }

# Starts what is being started anyway, and waits for it; then tells how that ended. What systemd
# starts again and again, as Fedora's sshd every 42 s, is activating in between. What it leaves out,
# for a condition or what else the unit needs, is inactive; this file of Debian's is one that people
# make to have it left out. Behind a socket sshd starts with the first client, if it finds its keys.
sshd_states() {
  [ ! -e /etc/ssh/sshd_not_to_be_run ] || return 0
  for unit in ssh.service sshd.service; do
    is_enabled "$unit" || continue
    systemctl start "$unit" 2>/dev/null
    started=$?
    state=$(systemctl is-active "$unit")
    if [ "$state" = inactive ]; then state=failed; fi
    if [ "$started" != 0 ] && [ "$state" = activating ]; then state=failed; fi
    echo "sshd $state"
  done
  for unit in ssh.socket sshd.socket; do
    is_enabled "$unit" || continue
    systemctl start ssh-host-keys.service 2>/dev/null
    mkdir -p /run/sshd
    if "$(command -v sshd)" -t 2>/dev/null; then echo "sshd socket"; else echo "sshd failed"; fi
  done
}

# What first-boot commands wait for must come after the address, which every client of DHCP names in
# the journal; half a second is for clients that write their line when all is done.
first_boot() {
  [ -e /usr/lib/virt-sysprep/firstboot.sh ] || return 0
  case " $(systemctl show --property=After --value guestfs-firstboot.service 2>/dev/null) " in
    *' network-online.target '*) ;;
    *) echo "first-boot they do not wait for network-online.target" && return 0 ;;
  esac
  online=$(systemctl show --property=ActiveEnterTimestampMonotonic --value network-online.target)
  leased=$(journalctl --boot --no-pager --output=short-monotonic 2>/dev/null |
    sed -nE "s/^\[ *([0-9]+)\.([0-9]{6})\].*$LEASED.*/\1\2/p" | head -n 1)
  if [ "${online:-0}" -gt 0 ] && [ "$((online + 500000))" -lt "${leased:-0}" ]; then
    early=$(((leased - online) / 1000))
    echo "first-boot network-online.target was reached $early ms before DHCP gave an address"
  else
    echo "first-boot "
  fi
}

# A machine that was shut down has nothing to repair at its next start.
recovered() {
  { dmesg 2>/dev/null || journalctl --boot --dmesg --no-pager --output=cat 2>/dev/null; } |
    grep -E ': recovery complete|: Starting recovery|not properly unmounted|start tree-log replay' |
    sed 's/^/recovered /'
}

# In sectors of 512 bytes: where the root partition begins, its size, and its disk's size.
root_place() {
  device=$(findmnt --noheadings --raw --output SOURCE / 2>/dev/null) || return 0
  device=${device%%\[*}
  block=$(basename "$(readlink -f "$device")")
  entry=$(readlink -f "/sys/class/block/$block") || return 0
  if [ -e "$entry/partition" ]; then
    echo "root $device $(cat "$entry/start") $(cat "$entry/size") $(cat "$entry/../size")"
  fi
}

# Who promises that the root file system grows: our unit, or cloud-init where it ran.
growers() {
  if [ -e /etc/systemd/system/sysinit.target.wants/grow-root.service ]; then
    echo "grows grow-root.service"
  elif command -v growpart >/dev/null && [ -e /run/cloud-init/result.json ] &&
    [ ! -e /etc/growroot-disabled ]; then
    echo "grows cloud-init"
  fi
}

identity() {
  read -r id 2>/dev/null </etc/machine-id && echo "machine-id $id"
  for file in /etc/ssh/ssh_host_*_key.pub; do
    if [ -e "$file" ]; then echo "host-key $(ssh-keygen -lf "$file" | cut -d' ' -f2)"; fi
  done
  sed -n 's/^ *default-duid \(.*\);$/dhcp-duid \1/p' /var/lib/dhcp/*.leases 2>/dev/null
  sed 's/^/dhcp-duid /' /var/lib/dhcpcd/duid /etc/dhcpcd.duid 2>/dev/null
}

# What makes a machine itself and is older than this boot: every clone has the same. Clients of
# DHCP write their files anew in place, so of these the birth counts, where the file system has it.
baked() {
  started=$(sed -n 's/^btime //p' /proc/stat)
  for file in /etc/machine-id /var/lib/dbus/machine-id /etc/ssh/ssh_host_*key $IDENTITIES $RENEWED
  do
    if [ ! -s "$file" ] || [ -L "$file" ]; then continue; fi
    if [ -e "$KEPT" ] && grep -qxF -e "$file" "$KEPT"; then continue; fi
    if [ "$(stat -c %Y "$file")" -lt "$started" ]; then echo "baked $file"; fi
  done
  case $(stat -f -c %T /var/lib) in ext2/ext3 | xfs | btrfs) ;; *) return 0 ;; esac
  for file in /var/lib/dhcp/*.leases /var/lib/dhclient/*.lease* /var/lib/NetworkManager/*.lease \
    /var/lib/dhcpcd/*.lease* /var/lib/systemd/network/*
  do
    [ -s "$file" ] || continue
    if [ "$(stat -c %W "$file")" -lt "$started" ]; then echo "baked $file"; fi
  done
}

# What others than root may write to here makes them root.
writable() {
  find /etc -xdev ! -type l ! -perm -1000 \( -perm -002 -o -perm -020 -group 0 \) 2>/dev/null |
    head -n 20 | sed 's/^/writable /'
}

answer() { if [ "$1" = 0 ]; then echo "login-works $2"; else echo "login-fails $2"; fi; }

# An account's end, and that of a password, keep out who has it; a change at the first login does not.
is_ended() {
  "$1" "$2" chkexpiry </dev/null >/dev/null 2>&1
  case $? in 13 | 27) return 0 ;; *) return 1 ;; esac
}

# By the guest's own PAM, which knows how its shadow file is written.
passwords() {
  program=$(command -v unix_chkpwd) || return 0
  printf '%s\n' "$PASSWORDS" | while IFS=: read -r user password; do
    [ -n "$user" ] || continue
    printf '%s\0' "$password" | "$program" "$user" nullok >/dev/null 2>&1 &&
      ! is_ended "$program" "$user"
    answer $? "password of $user"
  done
}

# sshd believes no key that somebody else than its user or root may have put there.
keys() {
  printf '%s\n' "$KEYS" | while read -r user keys; do
    [ -n "$user" ] || continue
    home=$(getent passwd "$user" | cut -d: -f6)
    file=$home/.ssh/authorized_keys
    has_keys "$file" $keys &&
      [ -z "$(find "$home" "$home/.ssh" "$file" -maxdepth 0 \
        \( -perm /022 -o ! -user "$user" ! -user root \))" ]
    answer $? "key of $user"
  done
}

has_keys() {
  listed=$(grep -v '^[[:blank:]]*#' "$1" 2>/dev/null) || return 1
  shift
  for key; do
    printf '%s\n' "$listed" | grep -qF -e " $key" || return 1
  done
}

state() {
  sshd_states
  failed_units
  identity
}

inspect_again() {
  state
  recovered
}

inspect() {
  state
  first_boot
  root_place
  growers
  baked
  writable
  passwords
  keys
}
