# shellcheck shell=bash
# Sourced by the scripts beside it, before all else: -h or --help, as the first argument, prints the
# comment at the top of the script; refuse says that an argument is none, prints it, and ends with 2.

usage() {
    sed -n '2,/^[^#]/s/^# \{0,1\}//p' "$0"
}

refuse() {
    echo "ci/${0##*/}: $1" >&2
    usage >&2
    exit 2
}

case "${1:-}" in
    -h | --help)
        usage
        exit
        ;;
esac
