"""Configuration only: the method and dataparser specifications that Nerfstudio's entry points load."""
