"""The attacks that ship with qlorabench, one file each; installed as ``qlorabench.attacks``."""
