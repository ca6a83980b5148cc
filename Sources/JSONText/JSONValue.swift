// SPDX-License-Identifier: Apache-2.0
//
// JSON as text (RFC 8259), without Foundation.

/// A value to print as JSON. Objects keep their order.
package enum JSONValue: CustomStringConvertible, ExpressibleByStringLiteral, ExpressibleByBooleanLiteral {
    case null
    case boolean(Bool)
    case integer(Int)
    case number(Double)
    case string(String)
    case array([JSONValue])
    case object(KeyValuePairs<String, JSONValue>)
    case fields([(String, JSONValue)])
    case dictionary([String: JSONValue])

    package init(stringLiteral value: String) { self = .string(value) }
    package init(booleanLiteral value: Bool) { self = .boolean(value) }
    package init(_ value: String?) { self = value.map { .string($0) } ?? .null }
    package init(_ value: Int?) { self = value.map { .integer($0) } ?? .null }

    /// The value in one line.
    package var description: String {
        switch self {
        case .null: "null"
        case .boolean(let value): value ? "true" : "false"
        case .integer(let value): String(value)
        case .number(let value): Self.decimal(value)
        case .string(let value): Self.quoted(value)
        case .array(let values): "[" + values.map(\.description).joined(separator: ",") + "]"
        case .object(let pairs): "{" + pairs.map { "\(Self.quoted($0)):\($1)" }.joined(separator: ",") + "}"
        case .fields(let pairs): "{" + pairs.map { "\(Self.quoted($0)):\($1)" }.joined(separator: ",") + "}"
        case .dictionary(let pairs):
            "{" + pairs.sorted { $0.key < $1.key }.map { "\(Self.quoted($0)):\($1)" }.joined(separator: ",") + "}"
        }
    }

    /// The shortest text that reads back as the same number; JSON has no infinity.
    private static func decimal(_ value: Double) -> String {
        guard value.isFinite else { return "null" }
        return Int(exactly: value).map(String.init) ?? value.description
    }

    private static func quoted(_ text: String) -> String {
        var result = "\""
        for scalar in text.unicodeScalars {
            switch scalar {
            case "\"": result += "\\\""
            case "\\": result += "\\\\"
            case "\n": result += "\\n"
            case "\t": result += "\\t"
            case "\u{0}"..<" ":
                let digits = String(scalar.value, radix: 16)
                result += "\\u" + String(repeating: "0", count: 4 - digits.count) + digits
            default: result.unicodeScalars.append(scalar)
            }
        }
        return result + "\""
    }
}
