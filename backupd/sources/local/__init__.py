"""Mail in local files: what mail programs and other tools keep. Read only, and never through a link that leads away."""
