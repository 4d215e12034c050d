"""Where pods come from: manifest files, a URL, the API server; each delivers full sets, merged into updates."""
