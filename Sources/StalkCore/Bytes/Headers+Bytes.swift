extension Headers {
    /// Writes the headers: for each the lengths of name (16 bits) and value (32 bits), then both.
    package func write(to writer: inout ByteWriter) {
        for field in self.fields {
            writer.write(UInt16(field.name.utf8.count))
            writer.write(UInt32(field.value.utf8.count))
            writer.write(field.name)
            writer.write(field.value)
        }
    }

    /// The size of what ``write(to:)`` writes.
    package var encodedBytes: Int {
        self.fields.reduce(0) { $0 + 6 + $1.name.utf8.count + $1.value.utf8.count }
    }

    /// Reads headers that fill the buffer.
    package init(reading buffer: UnsafeRawBufferPointer) throws(ByteReader.Truncated) {
        var reader = ByteReader(buffer)
        var fields: [Field] = []
        while reader.remaining > 0 {
            let nameCount = try Int(reader.read(UInt16.self))
            let valueCount = try Int(reader.read(UInt32.self))
            let name = try reader.readText(nameCount)
            fields.append(Field(name: name, value: try reader.readText(valueCount)))
        }
        self.init(stored: fields)
    }
}
