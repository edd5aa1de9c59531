package ehpeer

import (
	"encoding/binary"
	"math/bits"
)

// partitionOf chooses the partition for a key as the service does, so that what
// shares a partition here shares one there, given as many partitions: Bob
// Jenkins' lookup3 (hashlittle2, both seeds 0), its two halves folded to 16 bits.
// Rule: PartitionResolver of Azure's Java and .NET libraries, which calls itself
// a port of the service's code.
func partitionOf(key string, partitions int) int {
	b, c := lookup3([]byte(key))
	i := int(int16(b^c)) % partitions
	return max(i, -i)
}

func lookup3(data []byte) (b, c uint32) {
	a := 0xdeadbeef + uint32(len(data))
	b, c = a, a
	for len(data) > 12 {
		a += binary.LittleEndian.Uint32(data)
		b += binary.LittleEndian.Uint32(data[4:])
		c += binary.LittleEndian.Uint32(data[8:])
		for i, r := range [...]int{4, 6, 8, 16, 19, 4} {
			switch i % 3 {
			case 0:
				a = (a - c) ^ bits.RotateLeft32(c, r)
				c += b
			case 1:
				b = (b - a) ^ bits.RotateLeft32(a, r)
				a += c
			case 2:
				c = (c - b) ^ bits.RotateLeft32(b, r)
				b += a
			}
		}
		data = data[12:]
	}
	if len(data) == 0 {
		return b, c
	}
	var last [12]byte
	copy(last[:], data)
	a += binary.LittleEndian.Uint32(last[:])
	b += binary.LittleEndian.Uint32(last[4:])
	c += binary.LittleEndian.Uint32(last[8:])
	c = (c ^ b) - bits.RotateLeft32(b, 14)
	a = (a ^ c) - bits.RotateLeft32(c, 11)
	b = (b ^ a) - bits.RotateLeft32(a, 25)
	c = (c ^ b) - bits.RotateLeft32(b, 16)
	a = (a ^ c) - bits.RotateLeft32(c, 4)
	b = (b ^ a) - bits.RotateLeft32(a, 14)
	c = (c ^ b) - bits.RotateLeft32(b, 24)
	return b, c
}
