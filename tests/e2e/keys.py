"""Keys for tests: a key file, and the headers that carry a key."""
import base64
import os


def add_key(path, name):
    """Adds a client to a key file; the header that its requests need."""
    secret = f"the-secret-of-{name}"
    with open(path, "a", encoding="utf8") as out:
        out.write(f"{name} {secret}\n")
    os.chmod(path, 0o600)
    return {"Authorization": f"Bearer {secret}"}


def basic(user, password):
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()
