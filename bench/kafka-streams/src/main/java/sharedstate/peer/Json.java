package sharedstate.peer;

import com.fasterxml.jackson.core.JsonProcessingException;
import com.fasterxml.jackson.databind.ObjectMapper;
import java.io.IOException;

/** JSON by the library that Kafka Streams brings along. */
final class Json {
    static final ObjectMapper MAPPER = new ObjectMapper();

    private Json() {}

    static String quoted(String text) throws JsonProcessingException {
        return MAPPER.writeValueAsString(text);
    }

    static String field(String json, String name) throws IOException {
        return MAPPER.readTree(json).required(name).asText();
    }
}
