"""The page: static files, served as they are. No build step."""
