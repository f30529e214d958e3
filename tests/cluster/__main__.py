from tests.cluster import binaries

print(binaries.ensure())
