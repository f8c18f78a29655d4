#!/bin/bash
# ceph-fetch.sh SUITE DIR: unpack a Ceph object gateway (radosgw, ceph-mon, ceph-osd) of a Debian
# suite into DIR. Installs nothing and needs no root. The mirror is the one apt already uses here;
# on a machine that is not Debian, name one in LAGO_IMAGES_TEST_MIRROR.
set -euo pipefail
suite=$1
dir=$(realpath -m "$2")
work=$dir.apt
trap 'rm -rf "$work"' EXIT

mirror=${LAGO_IMAGES_TEST_MIRROR:-}
if [ -z "$mirror" ]; then
    # shellcheck disable=SC2016 # apt expands these
    mirror=$(apt-get indextargets --format '$(ORIGIN) $(LABEL) $(REPO_URI)' |
        awk '$1 == "Debian" && $2 == "Debian" { print $3; exit }')
fi
if [ -z "$mirror" ]; then
    echo "apt has no Debian mirror here; name one in LAGO_IMAGES_TEST_MIRROR" >&2
    exit 1
fi

mkdir -p "$work"/lists/partial "$work"/archives/partial "$dir"/usr/{bin,lib,lib64,sbin}
for link in bin lib lib64 sbin; do ln -sfn usr/$link "$dir/$link"; done
: > "$work/status"
cat > "$work/apt.conf" <<CONF
Dir::Etc::sourcelist "$work/sources.list";
Dir::Etc::sourceparts "-";
Dir::State::lists "$work/lists";
Dir::State::status "$work/status";
Dir::Cache "$work";
Dir::Cache::archives "$work/archives";
Acquire::Languages "none";
CONF
keyring=/usr/share/keyrings/debian-archive-keyring.gpg
echo "deb [signed-by=$keyring] $mirror $suite main" > "$work/sources.list"
export APT_CONFIG=$work/apt.conf
apt-get update -qq
apt-get install -y -qq --no-install-recommends --print-uris radosgw ceph-mon ceph-osd |
    awk -F"'" '{ print $2 }' | sed 's|.*/||; s/_.*//; s/%2b/+/g' | sort -u > "$work/closure"

# What the daemons do not link.
unused='python3.*|libpython3.*|perl.*|libperl.*|systemd.*|libsystemd-shared|sudo|adduser|passwd'
unused+='|login.*|xfsprogs|smartmontools|nvme-cli|parted|lvm2|cryptsetup.*|dmsetup|dmeventd|jq'
unused+='|debianutils|bash|coreutils|util-linux|mount|sysvinit.*|init-system-helpers|media-types'
unused+='|tzdata|netbase|dpkg|tar|sed|uuid-runtime|udev|gdisk|hdparm|logrotate|cron.*'
unused+='|ca-certificates|openssl|sensible-utils|dash|findutils|mawk|ceph-volume|gawk|procps'
grep -vxE "$unused" "$work/closure" > "$work/want"
cd "$work/archives"
xargs -a "$work/want" apt-get download -qq
for package in *.deb; do dpkg -x "$package" "$dir"; done
rm -rf "$dir"/usr/share/{doc,man,locale}
