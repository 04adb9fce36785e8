#include "record.hpp"

#include <cctype>
#include <cmath>
#include <cstdio>

namespace bench {
namespace {

class reader {
 public:
  explicit reader(const std::string& line) : line_(line) {}

  bool skip(char wanted) {
    while (at_ < line_.size() && std::isspace(static_cast<unsigned char>(line_[at_]))) ++at_;
    if (at_ >= line_.size() || line_[at_] != wanted) return false;
    ++at_;
    return true;
  }

  void expect(char wanted) {
    if (!skip(wanted)) throw bad_request("expected '" + std::string(1, wanted) + "' at column " + std::to_string(at_));
  }

  std::string value() {
    if (skip('"')) return rest_of_string();
    const std::size_t begin = at_;
    while (at_ < line_.size() && (std::isalnum(static_cast<unsigned char>(line_[at_])) || line_[at_] == '.' ||
                                  line_[at_] == '-' || line_[at_] == '+'))
      ++at_;
    if (at_ == begin) throw bad_request("expected a value at column " + std::to_string(at_));
    return line_.substr(begin, at_ - begin);
  }

  std::string rest_of_string() {
    std::string text;
    while (at_ < line_.size() && line_[at_] != '"') {
      if (line_[at_] == '\\') ++at_;
      if (at_ < line_.size()) text += line_[at_++];
    }
    if (at_++ >= line_.size()) throw bad_request("a string is cut short");
    return text;
  }

 private:
  const std::string& line_;
  std::size_t at_ = 0;
};

}  // namespace

record record::parse(const std::string& line) {
  record result;
  reader from(line);
  from.expect('{');
  if (from.skip('}')) return result;
  do {
    from.expect('"');
    const std::string name = from.rest_of_string();
    from.expect(':');
    from.skip(' ');
    result.read_[name] = from.value();
  } while (from.skip(','));
  from.expect('}');
  return result;
}

const std::string& record::text(const std::string& name) const {
  const auto found = read_.find(name);
  if (found == read_.end()) throw bad_request("the field \"" + name + "\" is missing");
  return found->second;
}

std::size_t record::number(const std::string& name) const {
  const std::string& value = text(name);
  if (value.empty() || value.find_first_not_of("0123456789") != std::string::npos)
    throw bad_request("the field \"" + name + "\" is no whole number: " + value);
  return std::stoull(value);
}

std::size_t record::number(const std::string& name, std::size_t otherwise) const {
  return read_.contains(name) ? number(name) : otherwise;
}

void record::set(const std::string& name, const std::string& value) { written_[name] = quoted(value); }

void record::set(const std::string& name, double value) {
  char digits[40];
  std::snprintf(digits, sizeof digits, "%.10g", value);
  written_[name] = std::isfinite(value) ? digits : "null";
}

void record::set(const std::string& name, const record& value) { written_[name] = value.json(); }

std::string record::json() const {
  std::string text = "{";
  for (const auto& [name, value] : written_) text += (text.size() > 1 ? "," : "") + quoted(name) + ":" + value;
  return text + "}";
}

std::string quoted(const std::string& text) {
  std::string result = "\"";
  for (const char c : text) {
    if (c == '"' || c == '\\') result += '\\';
    result += static_cast<unsigned char>(c) < 0x20 ? ' ' : c;
  }
  return result + '"';
}

}  // namespace bench
