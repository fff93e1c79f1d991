"One experiment, one file, one `main`: its signature is the configuration."
