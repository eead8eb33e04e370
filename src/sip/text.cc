#include "sip/text.h"

namespace ktrunk::sip {

std::optional<std::string_view> find_parameter(std::string_view text, std::string_view name) {
  ParameterReader reader(text);
  for (ParameterReader::Parameter parameter; reader.next(parameter);)
    if (iequals(parameter.name, name)) return parameter.value;
  return std::nullopt;
}

}  // namespace ktrunk::sip
