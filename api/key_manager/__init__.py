"""The key manager: secrets of projects, as much of Barbican's v1 API as volumes and their hosts need."""
