package sharedstate.peer;

import java.io.IOException;
import java.net.URI;
import java.net.URLEncoder;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;
import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.regex.Matcher;
import java.util.regex.Pattern;
import org.apache.avro.Schema;

/** The schema registry: asked once per schema, never per message. */
final class Registry {
    private static final Pattern ID = Pattern.compile("\"id\"\\s*:\\s*(\\d+)");
    private static final String JSON = "application/vnd.schemaregistry.v1+json";

    private final String url;
    private final HttpClient client = HttpClient.newBuilder()
            .version(HttpClient.Version.HTTP_1_1)
            .connectTimeout(Duration.ofSeconds(5))
            .build();

    Registry(String url) {
        this.url = url.replaceAll("/+$", "");
    }

    /** Registers a schema under TopicRecordNameStrategy and returns its id. */
    int register(String topic, Schema schema) throws IOException {
        String subject = URLEncoder.encode(topic + "-" + schema.getFullName(), StandardCharsets.UTF_8);
        String body = "{\"schemaType\":\"AVRO\",\"schema\":" + Json.quoted(schema.toString()) + "}";
        HttpRequest.Builder request = HttpRequest.newBuilder(URI.create(url + "/subjects/" + subject + "/versions"))
                .header("Content-Type", JSON)
                .POST(HttpRequest.BodyPublishers.ofString(body));
        String answer = ask(request, "register " + subject);
        Matcher id = ID.matcher(answer);
        if (!id.find()) {
            throw new IOException("the registry answered without an id: " + answer);
        }
        return Integer.parseInt(id.group(1));
    }

    /** The schema with this id. */
    Schema byId(int id) throws IOException {
        String answer = ask(HttpRequest.newBuilder(URI.create(url + "/schemas/ids/" + id)).GET(), "schema " + id);
        return new Schema.Parser().parse(Json.field(answer, "schema"));
    }

    private String ask(HttpRequest.Builder request, String what) throws IOException {
        try {
            HttpResponse<String> answer =
                    client.send(request.timeout(Duration.ofSeconds(10)).build(), HttpResponse.BodyHandlers.ofString());
            if (answer.statusCode() != 200) {
                throw new IOException(what + ": the registry answered " + answer.statusCode() + " " + answer.body());
            }
            return answer.body();
        } catch (InterruptedException e) {
            Thread.currentThread().interrupt();
            throw new IOException(what, e);
        }
    }
}
