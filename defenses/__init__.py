"""The defenses that ship with qlorabench, one file each; installed as ``qlorabench.defenses``."""
