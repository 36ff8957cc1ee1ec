"""What the control plane keeps of pods in its state folder, whichever the cluster: folders, logs, displays, use, and the epoch that
led last."""
