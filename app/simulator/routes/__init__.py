"""fal's services, one file each, and the simulator's own pages."""
