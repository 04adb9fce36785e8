// A flat JSON object, one line: what the worker is asked, and what it answers.
//
// Of JSON it reads strings, numbers and booleans, not nested; it writes nested objects because a value may be given as
// JSON already.
#pragma once

#include <cstddef>
#include <map>
#include <stdexcept>
#include <string>

namespace bench {

/// What is wrong with a request; its text goes back to whoever asked.
struct bad_request : std::runtime_error {
  using std::runtime_error::runtime_error;
};

class record {
 public:
  record() = default;

  /// bad_request if `line` is no flat JSON object.
  static record parse(const std::string& line);

  /// bad_request if there is no such field, or it is no number.
  const std::string& text(const std::string& name) const;
  std::size_t number(const std::string& name) const;
  std::size_t number(const std::string& name, std::size_t otherwise) const;

  void set(const std::string& name, const std::string& value);  ///< a string
  void set(const std::string& name, double value);
  void set(const std::string& name, const record& value);

  std::string json() const;

 private:
  std::map<std::string, std::string> read_;     // of a request: the values, unquoted
  std::map<std::string, std::string> written_;  // of an answer: the values as JSON
};

/// `text` with the quotes and escapes of JSON.
std::string quoted(const std::string& text);

}  // namespace bench
