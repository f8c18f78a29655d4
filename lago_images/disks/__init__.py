"""Handle disks as xz streams: compressed, decompressed and summed in one pass, within bounds."""
