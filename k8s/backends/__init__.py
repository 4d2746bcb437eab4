"""Where jobs run; each with the same five verbs, see ``k8s.follow.Backend``."""
